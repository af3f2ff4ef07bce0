// Asking the server from anywhere in the panel, whichever way it talks.

import type { Answer, Carrier } from "./carrier";

export class Ask {
  constructor(private readonly carrier: () => Carrier | null) {}

  /** The answer's JSON; what went wrong is an Error with the server's own words. */
  async json<Result>(method: string, path: string, body: object | null = null): Promise<Result> {
    return checked(await this.call(method, path, body)).json as Result;
  }

  /** An answer that is no JSON. */
  async blob(method: string, path: string, body: object | null = null): Promise<Blob> {
    return checked(await this.call(method, path, body)).blob ?? new Blob();
  }

  private call(method: string, path: string, body: object | null): Promise<Answer> {
    const carrier = this.carrier();
    if (!carrier) throw new Error("not connected yet: try again in a moment");
    return carrier.call(method, path, body);
  }
}

function checked(answer: Answer): Answer {
  if (answer.status < 400) return answer;
  const { message } = (answer.json ?? {}) as { message?: string };
  throw new Error(message ?? `the server answered ${answer.status}`);
}

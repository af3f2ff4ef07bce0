// Through the kernel, by messages of the widget: where there is no extension. Calls wait while a cell runs.

import { type Answer, Backoff, type Carrier, type Connection } from "./carrier";
import type { Line } from "./protocol";

/** What the panel needs of a widget's model. */
export interface Model {
  get(name: string): unknown;
  send(message: object): void;
  on(event: "msg:custom", listener: (message: Message, buffers: DataView[]) => void): void;
  off(event: "msg:custom", listener: (message: Message, buffers: DataView[]) => void): void;
}

type Message = { op: "line"; line: Line } | Reply;

interface Reply {
  op: "reply";
  id: number;
  status: number;
  content_type: string;
  body: unknown;
}

/** The stream says something twice a second: who is silent so long is not there. */
const SILENCE_MS = 5000;

export class CommCarrier implements Carrier {
  readonly way = "through the kernel: waits while a cell runs";
  readonly silence = "waiting for the kernel\u2026 these are the last values";
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  /** Several views of one model hear all replies: they must not take each other's for their own. */
  private readonly view = Math.floor(Math.random() * 2 ** 40);
  private last = this.view;

  constructor(private readonly model: Model) {}

  follow(onLine: (line: Line) => void, onConnection: (connection: Connection) => void): () => void {
    const watch = new Watch(() => this.model.send({ op: "follow", view: this.view }), onConnection);
    const listener = (message: Message, buffers: DataView[]): void => {
      if (message.op === "reply") return this.settle(message, buffers);
      watch.heard(message.line.event === "gone");
      onLine(message.line);
    };
    this.model.on("msg:custom", listener);
    watch.start();
    return () => {
      watch.stop();
      this.model.off("msg:custom", listener);
      this.model.send({ op: "unfollow", view: this.view });
    };
  }

  call(method: string, path: string, body: object | null = null): Promise<Answer> {
    const id = ++this.last;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.model.send({ op: "call", id, method, path, body });
    });
  }

  private settle(reply: Reply, buffers: DataView[]): void {
    const blob = buffers[0] ? new Blob([buffers[0] as BlobPart], { type: reply.content_type }) : null;
    this.waiting.get(reply.id)?.({ status: reply.status, json: reply.body, blob });
    this.waiting.delete(reply.id);
  }
}

/** Asks again when nothing was heard for long. */
class Watch {
  private readonly backoff = new Backoff(SILENCE_MS, 4 * SILENCE_MS);
  private timer = 0;

  constructor(
    private readonly ask: () => void,
    private readonly onConnection: (connection: Connection) => void,
  ) {}

  start(): void {
    this.ask();
    this.wait();
  }

  heard(isLast: boolean): void {
    clearTimeout(this.timer);
    this.backoff.reset();
    this.onConnection("open");
    if (!isLast) this.wait();
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private wait(): void {
    const again = (): void => {
      this.onConnection("lost");
      this.start();
    };
    this.timer = setTimeout(again, this.backoff.next());
  }
}

// Which way to talk: Jupyter's server where it has the extension and knows the endpoint, else the kernel.

import type { Carrier } from "./carrier";
import { CommCarrier, type Model } from "./comm_carrier";
import { ExtensionCarrier, jupyterOf } from "./extension_carrier";

export interface Place {
  name: string;
  serverId: string;
  baseUrl?: string;
}

export async function pickCarrier(place: Place, model: Model | null): Promise<Carrier> {
  const jupyter = jupyterOf(document, place.baseUrl);
  const extension = jupyter && new ExtensionCarrier(jupyter, place.name, place.serverId);
  if (extension && (!model || (await extension.knows()))) return extension;
  if (model) return new CommCarrier(model);
  throw new Error("this page is not Jupyter\u2019s: there is no way to the endpoint");
}

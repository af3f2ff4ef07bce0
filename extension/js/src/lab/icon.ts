// The icons that Lab does not have.

import { LabIcon } from "@jupyterlab/ui-components";

/** Two servers, one above the other; what comes out of the upper one is on its way. */
export const endpointsIcon = new LabIcon({
  name: "nbserve:endpoints",
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="24">
  <path class="jp-icon3 jp-icon-selectable" fill="#616161" fill-rule="evenodd" d="M4.5 4A1.5 1.5 0 0 0 3 5.500v4A1.500 1.500 0 0 0 4.500 11h15A1.500 1.500 0 0 0 21 9.500v-4A1.500 1.500 0 0 0 19.500 4zM6 6.300a1.200 1.200 0 1 1 0 2.400a1.200 1.200 0 1 1 0-2.400M10 6.750h8v1.500h-8zM4.500 13A1.500 1.500 0 0 0 3 14.500v4A1.500 1.500 0 0 0 4.500 20h15A1.500 1.500 0 0 0 21 18.500v-4A1.500 1.500 0 0 0 19.500 13zM6 15.300a1.200 1.200 0 1 1 0 2.400a1.200 1.200 0 1 1 0-2.400M10 15.750h5v1.500h-5z"/>
</svg>`,
});

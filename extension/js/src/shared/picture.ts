// The picture that follows in a notebook is for readers without scripts: whoever sees this has no need of it.

/** Hide the picture in the output after the one that `inside` is in. */
export function hidePicture(inside: Element | null | undefined): void {
  const output = inside?.closest(".jp-OutputArea-child, .output_area");
  if (!output?.parentElement) return;
  const hide = (): void => {
    const next = output.nextElementSibling as HTMLElement | null;
    if (next?.querySelector("img")) next.style.display = "none";
  };
  new MutationObserver(hide).observe(output.parentElement, { childList: true, subtree: true });
  hide();
}

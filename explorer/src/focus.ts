// SPDX-License-Identifier: GPL-2.0-only
// Keeps the focus on the same object, and what matters in sight, while the drawing changes.

/** Scrolls a box so that a point of it can be seen. */
export function keepInSight(box: HTMLElement, x: number, y: number): void {
  const { scrollLeft: left, scrollTop: top } = box;
  if (y < top || y > top + box.clientHeight - 20) box.scrollTop = y - box.clientHeight / 2;
  if (x < left || x > left + box.clientWidth - 200) box.scrollLeft = x - box.clientWidth / 2;
}

/** The drawn object that has the focus, as a selector for the one that replaces it. */
export function focused(): string | null {
  const active = document.activeElement;
  const track = active?.closest("[data-testid^=track]")?.getAttribute("data-testid");
  if (!track || !(active instanceof SVGElement || active instanceof HTMLElement)) return null;
  const { select, expand } = active.dataset;
  const same = [...document.querySelectorAll(`[data-testid="${track}"] [data-select="${select}"]`)].indexOf(active);
  if (select !== undefined) return `[data-testid="${track}"] [data-select="${select}"]|${same}`;
  if (expand !== undefined) return `[data-testid="${track}"] [data-expand]|0`;
  return active.classList.contains("canvas") ? `[data-testid="${track}"] .canvas|0` : null;
}

export function refocus(place: string | null): void {
  if (place === null) return;
  const [selector, number] = place.split("|");
  const found = document.querySelectorAll<HTMLElement | SVGElement>(selector ?? "");
  (found[Number(number)] ?? found[0])?.focus({ preventScroll: true });
}

// SPDX-License-Identifier: GPL-2.0-only
// Names and numbers in words.

import type { Vma } from "./types";

export const PAGE = 4096;

export const hex = (address: number): string => `0x${address.toString(16)}`;

const grouped = new Intl.NumberFormat("en-US");

export const count = (n: number): string => (n < 1000 ? String(n) : grouped.format(n));

export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;

export const pages = (vma: Vma): number => (vma.end - vma.start) / PAGE;

export const vmaName = (process: string, vma: Vma): string => `${process}'s VMA at ${hex(vma.start)}`;

/** Access rights as in /proc/PID/maps, of flags such as "rd wr ac". */
export function rights(flags: string): string {
  const words = flags.split(/\s+/);
  if (!words.some((word) => word.length === 2)) return flags.slice(0, 4);
  const letter = (word: string, as: string): string => (words.includes(word) ? as : "-");
  return letter("rd", "r") + letter("wr", "w") + letter("ex", "x");
}

/** A counter; one that went below zero is a huge unsigned long. */
export const counter = (n: number): string => (n > Number.MAX_SAFE_INTEGER ? "< 0" : count(n));

export const shortId = (id: string): string => id.replace(/^\D+/, "");

/** The ids of objects that a text names. */
export const named = (text: string): Set<string> => new Set(text.match(/\b(?:vma|av|folio|slot)\d+\b/g) ?? []);

/** The end of a name that is too long. */
export const clipped = (name: string, most: number): string => (name.length > most ? `…${name.slice(1 - most)}` : name);

// The arithmetic of viewer.js, worked out by hand: node --test tests/browser/
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { above, border, chosen, counts, decoded, dice, iou, ordered, windowed } from "../../sahlib/browser/viewer.js";

const INDEX = {
  patients: ["A", "A", "A", "B"],
  sides: ["test", "test", "train", "test"],
  classes: { "with IVH": [1] },
  lesions: { SAH: { pixels: [0, 4, 9, 4], dice: [[null, 0.5, null, 0.25]] } },
};
const ALL = { side: "", kind: "all slices", least: 0, most: Infinity };

test("a slice comes back from its bytes", async () => {
  // 2 rows of 3: one stored picture, the truth's six bits (0b101001xx), one network
  const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6, 0b10100100, 0, 50, 51, 100, 1, 0);
  const header = { kind: "slice", height: 2, width: 3, stored: 1, networks: 1 };
  const got = await decoded(header, deflateSync(bytes));
  assert.deepEqual([...got.truth], [1, 0, 1, 0, 0, 1]);
  assert.deepEqual([...got.pictures[0]], [1, 2, 3, 4, 5, 6]);
  assert.deepEqual([...above(got.percent[0], 50)], [0, 0, 1, 1, 0, 0]); // 0.5 itself is not above 0.5
});

test("Hounsfield units are read as signed 16 bits", async () => {
  const bytes = new Uint8Array(Int16Array.of(-1000, 40).buffer);
  const got = await decoded({ kind: "hounsfield", height: 1, width: 2 }, deflateSync(bytes));
  assert.deepEqual([...got.values], [-1000, 40]);
});

test("scores of four pixels of truth, six found, three of them right", () => {
  const found = counts(Uint8Array.of(0, 1, 1, 1, 1, 1, 1), Uint8Array.of(1, 1, 1, 1, 0, 0, 0));
  assert.deepEqual(found, { tp: 3, fp: 3, fn: 1, found: 6, lesion: 4 });
  assert.equal(dice(found), 6 / 10);
  assert.equal(iou(found), 3 / 7);
});

test("a border runs between pixels, at the edge of the slice too", () => {
  const lines = border(Uint8Array.of(1, 0, 0, 0), 2, 2);
  const sides = [];
  for (let k = 0; k < lines.length; k += 4) sides.push(lines.slice(k, k + 4).join());
  assert.deepEqual(sides.sort(), ["0,0,0,1", "0,0,1,0", "0,1,1,1", "1,0,1,1"]);
  assert.deepEqual(border(new Uint8Array(4), 2, 2), []);
});

test("the length of a border is the number of sides between a mask and what is outside", () => {
  const mask = Uint8Array.from({ length: 64 }, (_, i) => ((i * 2654435761) >>> 7) & 1);
  const at = (x, y) => (x < 0 || y < 0 || x > 7 || y > 7 ? 0 : mask[8 * y + x]);
  let sides = 0;
  for (let y = 0; y <= 8; y++)
    for (let x = 0; x <= 8; x++) sides += (at(x, y) !== at(x - 1, y)) + (at(x, y) !== at(x, y - 1));
  const lines = border(mask, 8, 8);
  let length = 0;
  for (let k = 0; k < lines.length; k += 4)
    length += Math.abs(lines[k + 2] - lines[k]) + Math.abs(lines[k + 3] - lines[k + 1]);
  assert.equal(length, sides);
});

test("a window clips and rounds as the library does", () => {
  assert.deepEqual([...windowed(Int16Array.of(-5, 0, 40, 80, 900), [1, 0], 40, 80)], [0, 0, 128, 255, 255]);
  assert.deepEqual([...windowed(Uint8Array.of(0, 255), [80 / 255, 0], 40, 160)], [64, 191]);
});

test("slices are chosen by side, kind and size, both ends included", () => {
  assert.deepEqual(chosen(INDEX, "SAH", ALL), [0, 1, 2, 3]);
  assert.deepEqual(chosen(INDEX, "SAH", { ...ALL, side: "test", kind: "with lesion" }), [1, 3]);
  assert.deepEqual(chosen(INDEX, "SAH", { ...ALL, kind: "without lesion" }), [0]);
  assert.deepEqual(chosen(INDEX, "SAH", { ...ALL, kind: "with IVH" }), [1]);
  assert.deepEqual(chosen(INDEX, "SAH", { ...ALL, least: 4, most: 8 }), [1, 3]);
});

test("jumps go in order, ties by row, without slices that have nothing to go by", () => {
  const rows = [0, 1, 2, 3];
  assert.deepEqual(ordered(INDEX, "SAH", rows, "worst", 0), [3, 1]);
  assert.deepEqual(ordered(INDEX, "SAH", rows, "best", 0), [1, 3]);
  assert.deepEqual(ordered(INDEX, "SAH", rows, "largest"), [2, 1, 3]);
  assert.deepEqual(ordered(INDEX, "SAH", rows, "smallest"), [1, 3, 2]);
});

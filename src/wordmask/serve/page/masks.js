/** Masks in the browser: run lengths → a map of ids → colours, outlines and places for names. Nothing is read back from a canvas. */

/** Undo COCO's compressed run lengths: fill `map` (height × width, row by row) with `id` where the mask is. */
export function paintRuns({ size: [height, width], counts }, id, map) {
  const runs = [];
  for (let place = 0; place < counts.length; ) {
    let value = 0, shift = 0, digit;
    do {
      digit = counts.charCodeAt(place++) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  let start = 0;  // runs go down the columns
  runs.forEach((run, number) => {
    if (number % 2) {
      for (let place = start; place < start + run; place++) map[(place % height) * width + Math.floor(place / height)] = id;
    }
    start += run;
  });
}

/** A map of region ids, 0 for none; the first regions lie on top. */
export function idMap(regions, width, height) {
  const map = new Uint16Array(width * height);
  for (const region of [...regions].reverse()) paintRuns(region.segmentation, region.id, map);
  return { map, width, height };
}

/** The same map at another size, by the nearest pixel. */
export function resized({ map, width, height }, newWidth, newHeight) {
  const result = new Uint16Array(newWidth * newHeight);
  const columns = Uint32Array.from({ length: newWidth }, (_, x) => Math.min(width - 1, Math.floor(((x + 0.5) * width) / newWidth)));
  for (let y = 0; y < newHeight; y++) {
    const row = Math.min(height - 1, Math.floor(((y + 0.5) * height) / newHeight)) * width;
    for (let x = 0; x < newWidth; x++) result[y * newWidth + x] = map[row + columns[x]];
  }
  return { map: result, width: newWidth, height: newHeight };
}

/** Colours as the bytes of a canvas: red in the lowest. */
export function packed(hex, alpha = 255) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Turn a map into pixels: `colours[id]` each. */
export function filled({ map, width, height }, colours) {
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (let place = 0; place < map.length; place++) pixels[place] = colours[map[place]];
  return image;
}

/** Outline regions: `colours[id]` within `thickness` pixels of another id, nothing elsewhere. */
export function outlined({ map, width, height }, colours, thickness) {
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < height; y++) {
    const up = Math.max(0, y - thickness), down = Math.min(height - 1, y + thickness);
    for (let x = 0; x < width; x++) {
      const place = y * width + x, id = map[place];
      if (!colours[id]) continue;
      const left = Math.max(0, x - thickness), right = Math.min(width - 1, x + thickness);
      if (map[up * width + x] !== id || map[down * width + x] !== id || map[y * width + left] !== id || map[y * width + right] !== id) pixels[place] = colours[id];
    }
  }
  return image;
}

/** For every id the place farthest from its region's edge: {x, y} in [0, 1], and the distance as a share of the longer side. */
export function deepest(ids) {
  const scale = Math.min(1, 200 / Math.max(ids.width, ids.height));
  const small = resized(ids, Math.max(1, Math.round(ids.width * scale)), Math.max(1, Math.round(ids.height * scale)));
  const { map, width, height } = small, far = new Float32Array(map.length), found = new Map();
  const sweep = (x, y, steps) => {
    const place = y * width + x;
    let best = Math.min(far[place] || Infinity, Math.min(x, y, width - 1 - x, height - 1 - y) + 1);
    for (const [dx, dy, cost] of steps) {
      const nx = x + dx, ny = y + dy;
      if (nx < 0 || ny < 0 || nx >= width || ny >= height) continue;
      const other = ny * width + nx;
      best = Math.min(best, map[other] === map[place] ? far[other] + cost : 1);
    }
    far[place] = best;
  };
  const before = [[-1, 0, 1], [0, -1, 1], [-1, -1, 1.41], [1, -1, 1.41]];
  const after = before.map(([dx, dy, cost]) => [-dx, -dy, cost]);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) sweep(x, y, before);
  for (let y = height - 1; y >= 0; y--) for (let x = width - 1; x >= 0; x--) sweep(x, y, after);
  far.forEach((distance, place) => {
    const id = map[place], best = found.get(id);
    if (id && (!best || distance > best.far)) found.set(id, { far: distance, place });
  });
  for (const [id, { far: distance, place }] of found) {
    found.set(id, { x: ((place % width) + 0.5) / width, y: (Math.floor(place / width) + 0.5) / height, depth: distance / Math.max(width, height) });
  }
  return found;
}

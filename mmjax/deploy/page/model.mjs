// An export of mmjax in JavaScript: image preprocessing, tokenization and embeddings.
// The two libraries are passed in, so that this file runs in a browser and in Node.

const PRECISION = 22; // bits of the fixed-point weights of Pillow's resampling

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (x) => {
      const a = -0.5, y = Math.abs(x);
      if (y < 1) return ((a + 2) * y - (a + 3)) * y * y + 1;
      return y < 2 ? (((y - 5) * y + 8) * y - 4) * a : 0;
    },
  },
};

/** Weights of the source pixels of each output pixel, as Pillow computes them (Resample.c). */
function weights(size, from, to, out, filter) {
  const scale = (to - from) / out, spread = Math.max(1, scale), support = filter.support * spread;
  return Array.from({ length: out }, (_, place) => {
    const center = from + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(size, Math.trunc(center + support + 0.5));
    const row = [];
    for (let x = first; x < last; x++) row.push(filter.weight((x - center + 0.5) / spread));
    const total = row.reduce((sum, w) => sum + w, 0);
    return { first, row: row.map((w) => Math.trunc((w / total) * 2 ** PRECISION + (w < 0 ? -0.5 : 0.5))) };
  });
}

const clip8 = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** PRECISION)));

/**
 * Resize four channels of 8 bits: first along rows, then along columns, rounding in between, as Pillow does.
 *
 * Pillow 13 begins with the columns of some images that are not square, which rounds some pixels otherwise.
 */
function resized(pixels, width, height, box, side, filter) {
  const across = weights(width, box[0], box[2], side, filter), down = weights(height, box[1], box[3], side, filter);
  const half = 2 ** (PRECISION - 1), between = new Uint8Array(side * height * 4), out = new Uint8Array(side * side * 4);
  for (let y = 0; y < height; y++)
    across.forEach(({ first, row }, x) => {
      for (let c = 0; c < 4; c++) {
        let sum = half;
        for (let k = 0; k < row.length; k++) sum += pixels[(y * width + first + k) * 4 + c] * row[k];
        between[(y * side + x) * 4 + c] = clip8(sum);
      }
    });
  down.forEach(({ first, row }, y) => {
    for (let i = 0; i < side * 4; i++) {
      let sum = half;
      for (let k = 0; k < row.length; k++) sum += between[(first + k) * side * 4 + i] * row[k];
      out[y * side * 4 + i] = clip8(sum);
    }
  });
  return out;
}

/**
 * Cut off empty margins, and put the rest in the middle of a square.
 *
 * A canvas does not tell whether its image has an alpha channel. One without a transparent pixel is taken to have none.
 */
function trimmed({ data, width, height }) {
  let opaque = true;
  for (let i = 3; i < data.length; i += 4) opaque &&= data[i] === 255;
  const seen = (i) => (opaque ? [0, 1, 2].some((c) => data[i + c] !== data[c]) : data[i + 3] > 8);
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (seen((y * width + x) * 4)) {
        left = Math.min(left, x), right = Math.max(right, x + 1);
        top = Math.min(top, y), bottom = Math.max(bottom, y + 1);
      }
  if (right === 0 || (left === 0 && top === 0 && right === width && bottom === height)) return { data, width, height };
  const side = Math.max(right - left, bottom - top), square = new Uint8ClampedArray(side * side * 4);
  const margin = opaque ? data.slice(0, 4) : [0, 0, 0, 0];
  for (let i = 0; i < square.length; i++) square[i] = margin[i % 4];
  const dx = Math.floor((side - right + left) / 2), dy = Math.floor((side - bottom + top) / 2);
  for (let y = top; y < bottom; y++)
    for (let x = left; x < right; x++)
      for (let c = 0; c < 4; c++)
        square[((y - top + dy) * side + x - left + dx) * 4 + c] = data[(y * width + x) * 4 + c];
  return { data: square, width: side, height: side };
}

/** Preprocess an ImageData (RGBA) to float32 [size, size, 3], as preprocess.json says. */
export function preprocess(image, settings) {
  if (settings.class !== "EvalImage") throw new Error(`this page has no preprocessing ${settings.class}`);
  const { data, width, height } = settings.trim ? trimmed(image) : image;
  const premultiplied = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const product = i % 4 === 3 ? data[i] * 255 + 128 : data[i] * data[i - (i % 4) + 3] + 128;
    premultiplied[i] = ((product >> 8) + product) >> 8;
  }
  const side = Math.min(width, height), left = (width - side) / 2, top = (height - side) / 2;
  const box = settings.squash ? [0, 0, width, height] : [left, top, left + side, top + side];
  const size = settings.size, { mean, std } = settings.normalize;
  const pixels = resized(premultiplied, width, height, box, size, FILTERS[settings.interpolation]);
  const out = new Float32Array(size * size * 3);
  for (let i = 0; i < size * size; i++)
    for (let c = 0; c < 3; c++) {
      const onWhite = (pixels[i * 4 + c] + 255 - pixels[i * 4 + 3]) / 255;
      out[i * 3 + c] = (Math.min(1, Math.max(0, onWhite)) - mean[c]) / std[c];
    }
  return out;
}

/** Token ids of texts, `[begin] text eos pad pad ...`: a function from strings to rows of ids. */
export function makeTokenizer(Tokenizer, vocabulary, config) {
  const id = (token) => vocabulary.model.vocab[token];
  // Without the list of added tokens, "<eos>" written in a text is text, as in training.
  const engine = new Tokenizer({ ...vocabulary, added_tokens: [], post_processor: null }, {});
  const first = config.cls_token ?? config.bos_token;
  const begin = first == null ? [] : [id(first)];
  const longest = 4096 + 256 * Math.max(config.max_length, config.answer_length);
  return (strings) =>
    strings.map((text) => {
      const short = Array.from(text).slice(0, longest).join("");
      const words = short === "" ? [] : engine.encode(short, { add_special_tokens: false }).ids;
      const row = [...begin, ...words.slice(0, config.max_length - 1 - begin.length), id(config.eos_token)];
      return [...row, ...Array(config.max_length - row.length).fill(id(config.pad_token))];
    });
}

/** The parts "image" and "text" of an export. `read(name)` gives the bytes of a file of its folder. */
export async function loadModel(read, ort, Tokenizer) {
  const json = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));
  const manifest = await json("manifest.json");
  for (const part of ["image", "text"])
    if (!manifest.parts[part]) throw new Error(`this export has no part "${part}": the page compares images and texts`);
  const [settings, vocabulary, config] = await Promise.all(
    ["preprocess.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"].map(json),
  );
  const open = async (part) => ort.InferenceSession.create(new Uint8Array(await read(manifest.parts[part].file)));
  const image = await open("image"), text = await open("text");
  const tokenizer = makeTokenizer(Tokenizer, vocabulary, config);
  const size = settings.size;
  const model = {
    manifest,
    tokenizer,
    preprocess: (picture) => preprocess(picture, settings),
    async encodeImage(picture) {
      const rows = new ort.Tensor("float32", preprocess(picture, settings), [1, size, size, 3]);
      return (await image.run({ image: rows })).output.data;
    },
    async encodeText(strings) {
      const ids = Int32Array.from(tokenizer(strings).flat());
      const { data, dims } = (await text.run({ text: new ort.Tensor("int32", ids, [strings.length, config.max_length]) }))
        .output;
      return strings.map((_, row) => data.slice(row * dims[1], (row + 1) * dims[1]));
    },
  };
  await check(model);
  return model;
}

export const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);

/** Compare the samples of the manifest with what this model makes of them: nothing may be silently wrong. */
async function check(model) {
  const { texts, ids, image, embeddings } = model.manifest.samples;
  if (JSON.stringify(model.tokenizer(texts)) !== JSON.stringify(ids))
    throw new Error("the tokenizer makes other token ids here than in Python: captions would be misread");
  const far = (a, b) => Math.max(...Array.from(a, (value, place) => Math.abs(value - b[place])));
  const picture = { ...image, data: Uint8ClampedArray.from(image.rgba) };
  const found = [await model.encodeImage(picture), ...(await model.encodeText(texts))];
  model.difference = Math.max(...found.map((row, place) => far(row, [embeddings.image, ...embeddings.text][place])));
  if (!(model.difference < 1e-3)) throw new Error(`embeddings differ by ${model.difference} from those in Python`);
}

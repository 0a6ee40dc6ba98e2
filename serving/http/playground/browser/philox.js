// NumPy's counter-based random generator Philox4x64-10 (Salmon et al., 2011).
//
// A 64-bit number is stored as two 32-bit numbers, the lower one first: JavaScript has integers of 64 bits only as
// BigInt, which is many times slower.

const ROUNDS = 10;
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n].map(halves);
const KEY_STEPS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn].map(halves);

// Returns `blocks` blocks of 4 words of 64 bits, as np.random.Philox(key=seed, counter=counter).random_raw does.
// seed: BigInt from 0 to 2^64 - 1. counter: BigInt from 0 to 2^256 - 1. The result is a Uint32Array.
export function randomWords(seed, counter, blocks) {
  const words = new Uint32Array(blocks * 8);
  const keys = roundKeys(seed);
  const position = new Uint32Array(8); // the counter
  for (let i = 0; i < 8; i++) position[i] = Number(BigInt.asUintN(32, counter >> BigInt(32 * i)));
  for (let start = 0; start < words.length; start += 8) {
    increment(position); // NumPy increments the counter before each block
    const block = words.subarray(start, start + 8);
    block.set(position);
    for (let round = 0; round < ROUNDS; round++) mix(block, keys, 4 * round);
  }
  return words;
}

function halves(word) {
  return [Number(BigInt.asUintN(32, word)), Number(word >> 32n)];
}

function increment(position) {
  for (let i = 0; i < position.length; i++) {
    position[i] += 1; // a Uint32Array wraps to 0
    if (position[i] !== 0) return;
  }
}

// The key of each round: two words, which grow by a constant from round to round. The second word starts at 0.
function roundKeys(seed) {
  const keys = new Uint32Array(4 * ROUNDS);
  keys.set(halves(seed));
  for (let i = 4; i < keys.length; i += 2) {
    const [low, high] = KEY_STEPS[(i / 2) % 2];
    const sum = keys[i - 4] + low;
    keys[i] = sum;
    keys[i + 1] = keys[i - 3] + high + (sum >= 2 ** 32 ? 1 : 0);
  }
  return keys;
}

const first = new Uint32Array(4);
const second = new Uint32Array(4);

// One round: block[0..7] are the words c0, c1, c2, c3, which become
// high(M1 c2) ^ c1 ^ k0, low(M1 c2), high(M0 c0) ^ c3 ^ k1, low(M0 c0).
function mix(block, keys, at) {
  multiply(MULTIPLIERS[0], block[0], block[1], first);
  multiply(MULTIPLIERS[1], block[4], block[5], second);
  block[0] = second[2] ^ block[2] ^ keys[at];
  block[1] = second[3] ^ block[3] ^ keys[at + 1];
  block[2] = second[0];
  block[3] = second[1];
  block[4] = first[2] ^ block[6] ^ keys[at + 2];
  block[5] = first[3] ^ block[7] ^ keys[at + 3];
  block[6] = first[0];
  block[7] = first[1];
}

// Multiplies two words of 64 bits; `product` gets the 128 bits of the result.
function multiply([aLow, aHigh], bLow, bHigh, product) {
  product[0] = Math.imul(aLow, bLow);
  const middle = high(aLow, bLow) + (Math.imul(aLow, bHigh) >>> 0) + (Math.imul(aHigh, bLow) >>> 0);
  product[1] = middle;
  const upper = high(aLow, bHigh) + high(aHigh, bLow) + (Math.imul(aHigh, bHigh) >>> 0) + Math.floor(middle / 2 ** 32);
  product[2] = upper;
  product[3] = high(aHigh, bHigh) + Math.floor(upper / 2 ** 32);
}

// The upper 32 bits of the product of two numbers of 32 bits.
function high(a, b) {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  return a1 * b1 + (middle >>> 16) + ((a0 * b1 + (middle & 0xffff)) >>> 16);
}

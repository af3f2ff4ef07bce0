// Rectangles written straight into pixels: tens of thousands of them in a few milliseconds.

/** A colour as the four bytes of a pixel. */
export type Pixel = number;

export function pixel(hex: string): Pixel {
  const value = parseInt(hex.slice(1), 16);
  return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

/** `part` of one colour, the rest of the other. */
export function mix(one: Pixel, other: Pixel, part: number): Pixel {
  let mixed = 0xff;
  for (const shift of [16, 8, 0]) {
    const value = ((one >>> shift) & 0xff) * part + ((other >>> shift) & 0xff) * (1 - part);
    mixed = (mixed << 8) | Math.round(value);
  }
  return mixed >>> 0;
}

/** A canvas full of pixels; coordinates are device pixels, what lies outside is cut off. */
export class Raster {
  private image: ImageData;
  private pixels: Uint32Array;

  constructor() {
    this.image = new ImageData(1, 1);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  get width(): number {
    return this.image.width;
  }

  get height(): number {
    return this.image.height;
  }

  clear(width: number, height: number, colour: Pixel): void {
    if (width !== this.width || height !== this.height) {
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(colour);
  }

  fill(left: number, top: number, right: number, bottom: number, colour: Pixel): void {
    left = Math.max(0, left);
    right = Math.min(this.width, right);
    bottom = Math.min(this.height, bottom);
    if (left >= right) return;
    for (let y = Math.max(0, top); y < bottom; y++) {
      this.pixels.fill(colour, y * this.width + left, y * this.width + right);
    }
  }

  draw(context: CanvasRenderingContext2D): void {
    context.putImageData(this.image, 0, 0);
  }
}

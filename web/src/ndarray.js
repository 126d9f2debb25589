// What H5Web uses of the packages ndarray and ndarray-ops, which compile text at run time. That
// is what the page's Content-Security-Policy forbids, so the build takes this file for both.

const DTYPES = {
  Uint8ClampedArray: "uint8_clamped",
  Array: "array",
};

class NdArray {
  constructor(data, shape, stride, offset) {
    this.data = data;
    this.shape = shape;
    this.stride = stride;
    this.offset = offset;
  }

  get dtype() {
    const { name } = this.data.constructor;
    return DTYPES[name] ?? name.replace("Array", "").toLowerCase();
  }

  get dimension() {
    return this.shape.length;
  }

  get size() {
    return this.shape.reduce((size, extent) => size * extent, 1);
  }

  index(...place) {
    return this.stride.reduce((at, step, axis) => at + step * (place[axis] ?? 0), this.offset);
  }

  get(...place) {
    return this.data[this.index(...place)];
  }

  set(...placeAndValue) {
    const value = placeAndValue.pop();
    return (this.data[this.index(...placeAndValue)] = value);
  }

  pick(...place) {
    const isKept = (_, axis) => typeof place[axis] !== "number" || place[axis] < 0;
    const fixed = place.map((at) => (typeof at === "number" && at >= 0 ? at : 0));
    return new NdArray(
      this.data,
      this.shape.filter(isKept),
      this.stride.filter(isKept),
      this.index(...fixed),
    );
  }

  transpose(...axes) {
    const order = this.shape.map((_, axis) => axes[axis] ?? axis);
    return new NdArray(
      this.data,
      order.map((axis) => this.shape[axis]),
      order.map((axis) => this.stride[axis]),
      this.offset,
    );
  }
}

export default function ndarray(data, shape = [data.length], stride, offset = 0) {
  const steps = stride ?? shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  return new NdArray(data, shape, steps, offset);
}

// Copy the elements of an array into another one of the same shape.
export function assign(target, source) {
  const { shape } = target;
  const last = shape.length - 1;
  function copy(axis, to, from) {
    if (axis > last) {
      target.data[to] = source.data[from];
      return;
    }
    const [toStep, fromStep] = [target.stride[axis], source.stride[axis]];
    for (let k = 0; k < shape[axis]; k++, to += toStep, from += fromStep) {
      if (axis === last) target.data[to] = source.data[from];
      else copy(axis + 1, to, from);
    }
  }
  copy(0, target.offset, source.offset);
  return target;
}

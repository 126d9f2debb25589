// Where a browser keeps nothing for a page in a frame of another site, such as a notebook's, even
// looking for the storage is an error. H5Web then remembers its settings as long as the page lives.

class Memory {
  #items = new Map();

  get length() {
    return this.#items.size;
  }

  key(index) {
    return [...this.#items.keys()][index] ?? null;
  }

  getItem(key) {
    return this.#items.get(String(key)) ?? null;
  }

  setItem(key, value) {
    this.#items.set(String(key), String(value));
  }

  removeItem(key) {
    this.#items.delete(String(key));
  }

  clear() {
    this.#items.clear();
  }
}

for (const name of ["localStorage", "sessionStorage"]) {
  try {
    void window[name];
  } catch {
    Object.defineProperty(window, name, { value: new Memory() });
  }
}

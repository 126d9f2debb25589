// The object class `dosna`: predicates, rows and statistics of a chunk, on the OSD that stores it.
//
// A chunk is an object of little-endian elements in C order, followed by a CRC-32C or not. The
// client sends a head and the arguments of a method (see dosna/query/ceph_class/protocol.py) and
// takes any error for "read the chunk instead". So what this class is not sure of is an error:
// another version, an object of another length, a wrong checksum, an argument that is out of
// bounds. All methods only read; what they return is never longer than the head allows.
//
// It is one file above 450 lines, because an administrator compiles it by one call of g++.

#include <rados/objclass.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

CLS_VER(1, 0)
CLS_NAME(dosna)

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "chunks are little-endian");

namespace {

using ceph::bufferlist;

constexpr uint8_t VERSION = 1;
constexpr uint64_t MOST_BYTES = uint64_t(1) << 30;  // of a chunk
constexpr size_t BLOCK = 4096;                      // rows at a time, a multiple of 8
constexpr size_t MOST_STEPS = 64;                   // of a program
constexpr size_t MOST_DEPTH = 8;                    // of its stack
constexpr uint16_t FAR = 0xffff;                    // a gap that goes on in the next one

enum Form : uint8_t { BITMAP = 0, GAPS = 1, ALL = 2 };
enum Step : uint8_t { LT = 1, LE, EQ, NE, GT, GE, AND = 16, OR, NOT, ABSOLUTE = 64 };

struct Failure {
  int number;
};

[[noreturn]] void fail(int number) { throw Failure{number}; }

void need(bool condition, int number = EINVAL) {
  if (!condition) fail(number);
}

// What a client sent, read from its beginning to its end.
class Input {
 public:
  Input(const char* data, size_t size) : at_(data), end_(data + size) {}

  const char* bytes(uint64_t count) {
    need(count <= left());
    const char* found = at_;
    at_ += count;
    return found;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, bytes(sizeof(T)), sizeof(T));
    return value;
  }

  size_t left() const { return size_t(end_ - at_); }

 private:
  const char *at_, *end_;
};

// The head of each request: 48 bytes.
struct Head {
  char kind;         // f, i, u or b, as in NumPy
  uint8_t itemsize;  // bytes of an element
  uint8_t checks;    // 1 if the chunk ends with a CRC-32C
  uint32_t width;    // bytes of a row
  uint64_t rows;     // rows of the chunk
  uint64_t start;    // the first row that counts
  uint64_t stop;     // the row behind the last that counts
  uint64_t most;     // bytes that may be returned

  explicit Head(Input& input) {
    need(input.number<uint8_t>() == VERSION, EOPNOTSUPP);
    kind = char(input.number<uint8_t>());
    itemsize = input.number<uint8_t>();
    checks = input.number<uint8_t>();
    width = input.number<uint32_t>();
    rows = input.number<uint64_t>();
    start = input.number<uint64_t>();
    stop = input.number<uint64_t>();
    most = input.number<uint64_t>();
    input.bytes(8);  // for later versions
    need(checks <= 1 && itemsize > 0 && width > 0 && width % itemsize == 0);
    need(rows > 0 && rows <= MOST_BYTES / width);
    need(start <= stop && stop <= rows && most <= MOST_BYTES);
  }

  uint64_t count() const { return stop - start; }

  // A method that looks at elements needs one in each row.
  void check_flat() const { need(width == itemsize, EOPNOTSUPP); }
};

// All bytes of a chunk, whose length and checksum are right.
class Chunk {
 public:
  Chunk(cls_method_context_t context, const Head& head) {
    const uint64_t body = uint64_t(head.rows) * head.width, size = body + 4 * head.checks;
    uint64_t found = 0;
    const int status = cls_cxx_stat(context, &found, nullptr);
    need(status >= 0, -status);
    need(found == size, EBADMSG);
    // Apart from the checksum: an OSD checks an object that is read whole by a checksum of its own.
    read(context, 0, body, &held_);
    if (head.checks) {
      bufferlist trailer;
      read(context, body, sizeof(uint32_t), &trailer);
      uint32_t stored;
      std::memcpy(&stored, trailer.c_str(), sizeof(stored));
      // Before the pieces of the buffer are joined: those in the OSD's memory keep their checksums.
      need(~held_.crc32c(~uint32_t(0)) == stored, EBADMSG);
    }
    data_ = held_.c_str() + head.start * head.width;
  }

  // The first row that counts.
  const char* data() const { return data_; }

 private:
  static void read(cls_method_context_t context, uint64_t at, uint64_t count, bufferlist* into) {
    const int status = cls_cxx_read(context, int(at), int(count), into);
    need(status >= 0, -status);
    need(into->length() == count, EBADMSG);
  }

  bufferlist held_;
  const char* data_;
};

// -- rows: a bitmap, or gaps of 16 bits ---------------------------------------------------------

// Put the truth of some rows, a byte each that is 0 or 1, into the bits from a byte on.
void pack(const uint8_t* truth, size_t count, char* bits) {
  size_t row = 0;
  for (; row + 8 <= count; row += 8) {
    uint64_t eight;
    std::memcpy(&eight, truth + row, 8);
    bits[row / 8] = char((eight * 0x0102040810204080u) >> 56);
  }
  for (; row < count; ++row) bits[row / 8] |= char(truth[row] << (row % 8));
}

uint64_t word_of(const std::string& bits, size_t at) {
  uint64_t word = 0;
  std::memcpy(&word, bits.data() + at, std::min<size_t>(8, bits.size() - at));
  return word;
}

// The rows of a bitmap, in the form that takes fewer bytes: form, count, and either of the two.
struct Rows {
  uint8_t form = BITMAP;
  uint64_t count = 0;
  std::string bits;
  std::string gaps;

  Rows(std::string bitmap, uint64_t length) : bits(std::move(bitmap)) {
    for (size_t at = 0; at < bits.size(); at += 8) {
      count += uint64_t(__builtin_popcountll(word_of(bits, at)));
    }
    if (count == length) {
      form = ALL;
    } else if (2 * (count + length / FAR) < bits.size()) {
      form = GAPS;
      uint64_t last = 0;
      each([&](uint64_t row) {
        uint64_t gap = row - last;
        for (; gap >= FAR; gap -= FAR) add(FAR);
        add(uint16_t(gap));
        last = row;
      });
    }
  }

  template <typename Visit>
  void each(Visit visit) const {
    for (size_t at = 0; at < bits.size(); at += 8) {
      for (uint64_t word = word_of(bits, at); word; word &= word - 1) {
        visit(8 * at + uint64_t(__builtin_ctzll(word)));
      }
    }
  }

  void write(bufferlist* out) const {
    char head[16] = {char(form)};
    std::memcpy(head + 8, &count, 8);
    out->append(head, sizeof(head));
    if (form != ALL) {
      const std::string& body = form == GAPS ? gaps : bits;
      out->append(body.data(), unsigned(body.size()));
    }
  }

  size_t size() const {
    return 16 + (form == ALL ? 0 : form == GAPS ? gaps.size() : bits.size());
  }

 private:
  void add(uint16_t gap) { gaps.append(reinterpret_cast<const char*>(&gap), 2); }
};

// Call `visit` with each row that a client asks for, in order, and check that it is one.
template <typename Visit>
void each_row(Input& input, uint64_t limit, uint64_t count, uint8_t form, Visit visit) {
  need(count <= limit);
  if (form == GAPS) {
    uint64_t row = 0, seen = 0;
    for (bool first = true; seen < count;) {
      const uint16_t gap = input.number<uint16_t>();
      row += gap;
      need(row < limit);
      if (gap == FAR) {
        first = true;  // a far row may be a multiple of that behind the last
        continue;
      }
      need(gap > 0 || first);
      first = false;
      visit(row);
      ++seen;
    }
  } else {
    need(form == BITMAP);
    const char* data = input.bytes((limit + 7) / 8);
    const std::string bits(data, (limit + 7) / 8);
    uint64_t seen = 0;
    for (size_t at = 0; at < bits.size(); at += 8) {
      for (uint64_t word = word_of(bits, at); word; word &= word - 1) {
        const uint64_t row = 8 * at + uint64_t(__builtin_ctzll(word));
        need(row < limit && seen < count);
        visit(row);
        ++seen;
      }
    }
    need(seen == count);
  }
}

// A row of a fixed width, so that it is copied by a few instructions.
template <size_t WIDTH>
void copy(char* to, const char* from, uint64_t row) {
  std::memcpy(to, from + row * WIDTH, WIDTH);
}

// -- predicates ---------------------------------------------------------------------------------

template <typename T>
T absolute(T value) {
  if constexpr (std::is_floating_point_v<T>) return std::fabs(value);
  return value;
}

template <bool ABS, typename T, typename Compare>
void compare(const T* values, size_t count, T limit, uint8_t* truth, Compare holds) {
  for (size_t i = 0; i < count; ++i) {
    truth[i] = holds(ABS ? absolute(values[i]) : values[i], limit);
  }
}

template <bool ABS, typename T>
void compare(const T* values, size_t count, uint8_t step, T limit, uint8_t* truth) {
  switch (step) {
    case LT: return compare<ABS>(values, count, limit, truth, [](T a, T b) { return a < b; });
    case LE: return compare<ABS>(values, count, limit, truth, [](T a, T b) { return a <= b; });
    case EQ: return compare<ABS>(values, count, limit, truth, [](T a, T b) { return a == b; });
    case NE: return compare<ABS>(values, count, limit, truth, [](T a, T b) { return a != b; });
    case GT: return compare<ABS>(values, count, limit, truth, [](T a, T b) { return a > b; });
    case GE: return compare<ABS>(values, count, limit, truth, [](T a, T b) { return a >= b; });
    default: fail(EOPNOTSUPP);
  }
}

// Run a program over a block of values. It works on a stack: a comparison with a constant adds
// the truth of each row to it, AND and OR take two away and add one, NOT changes the last.
template <typename T>
void run(Input program, const T* values, size_t count, uint8_t* result) {
  static_assert(MOST_DEPTH * BLOCK <= 64 << 10, "the stack of a thread of an OSD is small");
  uint8_t stack[MOST_DEPTH][BLOCK];
  size_t depth = 0;
  for (size_t steps = 0; program.left(); ++steps) {
    need(steps < MOST_STEPS, E2BIG);
    const uint8_t step = program.number<uint8_t>();
    if (step == NOT) {
      need(depth >= 1);
      for (size_t i = 0; i < count; ++i) stack[depth - 1][i] ^= 1;
    } else if (step == AND || step == OR) {
      need(depth >= 2);
      --depth;
      uint8_t *one = stack[depth - 1], *other = stack[depth];
      if (step == AND) {
        for (size_t i = 0; i < count; ++i) one[i] &= other[i];
      } else {
        for (size_t i = 0; i < count; ++i) one[i] |= other[i];
      }
    } else {
      need(depth < MOST_DEPTH, E2BIG);
      const T limit = program.number<T>();
      if (step & ABSOLUTE) {
        need(std::is_floating_point_v<T>, EOPNOTSUPP);
        compare<true>(values, count, uint8_t(step & ~ABSOLUTE), limit, stack[depth]);
      } else {
        compare<false>(values, count, step, limit, stack[depth]);
      }
      ++depth;
    }
  }
  need(depth == 1);
  std::memcpy(result, stack[0], count);
}

// Call `visit` with the rows that count, a block at a time, in memory that is aligned.
template <typename T, typename Visit>
void each_block(const Chunk& chunk, uint64_t start, uint64_t stop, Visit visit) {
  alignas(64) T values[BLOCK];
  for (uint64_t row = start; row < stop; row += BLOCK) {
    const size_t count = size_t(std::min<uint64_t>(BLOCK, stop - row));
    std::memcpy(values, chunk.data() + row * sizeof(T), count * sizeof(T));
    visit(row, values, count);
  }
}

template <typename T>
Rows matching(const Head& head, const Chunk& chunk, Input& program) {
  std::string bits((head.count() + 7) / 8, '\0');
  each_block<T>(chunk, 0, head.count(), [&](uint64_t row, const T* values, size_t count) {
    uint8_t truth[BLOCK];
    run(program, values, count, truth);
    pack(truth, count, &bits[row / 8]);
  });
  return Rows(std::move(bits), head.count());
}

template <typename T>
void filter(const Head& head, const Chunk& chunk, Input& program, bool values, bufferlist* out) {
  const Rows rows = matching<T>(head, chunk, program);
  need(rows.size() + (values ? rows.count * sizeof(T) : 0) <= head.most, E2BIG);
  rows.write(out);
  if (!values) return;
  std::string found(rows.count * sizeof(T), '\0');
  char* at = &found[0];
  rows.each([&](uint64_t row) {
    copy<sizeof(T)>(at, chunk.data(), row);
    at += sizeof(T);
  });
  out->append(found.data(), unsigned(found.size()));
}

// -- statistics ---------------------------------------------------------------------------------

// Of each range of `block` rows: the least and the largest value (NaN only if all are) in 8 bytes
// each, and the number of NaN.
template <typename T>
void stats(const Head& head, const Chunk& chunk, uint64_t block, bufferlist* out) {
  constexpr size_t LANES = 16;
  using Limits = std::numeric_limits<T>;
  constexpr T low = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  constexpr T high = Limits::has_infinity ? Limits::infinity() : Limits::max();
  for (uint64_t start = 0; start < head.count(); start += block) {
    const uint64_t stop = std::min(head.count(), start + std::min(block, head.count() - start));
    T least[LANES], largest[LANES];
    uint64_t nans = 0;
    std::fill_n(least, LANES, high);
    std::fill_n(largest, LANES, low);
    each_block<T>(chunk, start, stop, [&](uint64_t, const T* values, size_t count) {
      size_t i = 0;
      for (; i + LANES <= count; i += LANES) {
        for (size_t j = 0; j < LANES; ++j) {
          const T value = values[i + j];
          least[j] = value < least[j] ? value : least[j];
          largest[j] = value > largest[j] ? value : largest[j];
        }
      }
      for (; i < count; ++i) {
        least[0] = values[i] < least[0] ? values[i] : least[0];
        largest[0] = values[i] > largest[0] ? values[i] : largest[0];
      }
      if constexpr (std::is_floating_point_v<T>) {
        for (i = 0; i < count; ++i) nans += values[i] != values[i];
      }
    });
    T ends[2] = {*std::min_element(least, least + LANES),
                 *std::max_element(largest, largest + LANES)};
    if (nans == stop - start) ends[0] = ends[1] = Limits::quiet_NaN();
    char entry[24] = {};
    std::memcpy(entry, &ends[0], sizeof(T));
    std::memcpy(entry + 8, &ends[1], sizeof(T));
    std::memcpy(entry + 16, &nans, 8);
    out->append(entry, sizeof(entry));
  }
}

// -- methods ------------------------------------------------------------------------------------

// Call `visit` with a value of the type of the elements.
template <typename Visit>
void with_type(const Head& head, Visit visit) {
  switch (head.kind << 8 | head.itemsize) {
    case 'f' << 8 | 4: return visit(float());
    case 'f' << 8 | 8: return visit(double());
    case 'i' << 8 | 1: return visit(int8_t());
    case 'i' << 8 | 2: return visit(int16_t());
    case 'i' << 8 | 4: return visit(int32_t());
    case 'i' << 8 | 8: return visit(int64_t());
    case 'b' << 8 | 1:
    case 'u' << 8 | 1: return visit(uint8_t());
    case 'u' << 8 | 2: return visit(uint16_t());
    case 'u' << 8 | 4: return visit(uint32_t());
    case 'u' << 8 | 8: return visit(uint64_t());
    default: fail(EOPNOTSUPP);
  }
}

template <typename Work>
int guarded(bufferlist* in, bufferlist* out, Work work) {
  try {
    Input input(in->length() ? in->c_str() : nullptr, in->length());
    work(input, out);
    return 0;
  } catch (const Failure& failure) {
    out->clear();
    return -failure.number;
  } catch (const std::bad_alloc&) {
    out->clear();
    return -ENOMEM;
  } catch (...) {  // such as ceph::buffer::error, which must not reach the OSD
    out->clear();
    return -EIO;
  }
}

int version(cls_method_context_t, bufferlist*, bufferlist* out) {
  out->append(char(VERSION));
  return 0;
}

int filter_or_mask(cls_method_context_t context, bufferlist* in, bufferlist* out, bool values) {
  return guarded(in, out, [&](Input& input, bufferlist* result) {
    const Head head(input);
    head.check_flat();
    const Chunk chunk(context, head);
    with_type(head, [&](auto type) {
      filter<decltype(type)>(head, chunk, input, values, result);
    });
  });
}

int mask_method(cls_method_context_t context, bufferlist* in, bufferlist* out) {
  return filter_or_mask(context, in, out, false);
}

int filter_method(cls_method_context_t context, bufferlist* in, bufferlist* out) {
  return filter_or_mask(context, in, out, true);
}

int take_method(cls_method_context_t context, bufferlist* in, bufferlist* out) {
  return guarded(in, out, [&](Input& input, bufferlist* result) {
    const Head head(input);
    const uint8_t form = input.number<uint8_t>();
    input.bytes(7);
    const uint64_t count = input.number<uint64_t>();
    need(count <= head.count());
    need(count * head.width <= head.most, E2BIG);
    const Chunk chunk(context, head);
    std::string rows(count * head.width, '\0');
    char* at = &rows[0];
    const char* from = chunk.data();
    auto take = [&](auto copy_row) {
      each_row(input, head.count(), count, form, [&](uint64_t row) {
        copy_row(row);
        at += head.width;
      });
    };
    switch (head.width) {
      case 1: take([&](uint64_t row) { copy<1>(at, from, row); }); break;
      case 2: take([&](uint64_t row) { copy<2>(at, from, row); }); break;
      case 4: take([&](uint64_t row) { copy<4>(at, from, row); }); break;
      case 8: take([&](uint64_t row) { copy<8>(at, from, row); }); break;
      default: take([&](uint64_t row) { std::memcpy(at, from + row * head.width, head.width); });
    }
    need(at == rows.data() + rows.size());
    result->append(rows.data(), unsigned(rows.size()));
  });
}

int stats_method(cls_method_context_t context, bufferlist* in, bufferlist* out) {
  return guarded(in, out, [&](Input& input, bufferlist* result) {
    const Head head(input);
    head.check_flat();
    const uint64_t block = input.number<uint64_t>();
    need(block > 0);
    need((head.count() / block + 1) * 24 <= head.most, E2BIG);
    const Chunk chunk(context, head);
    with_type(head, [&](auto type) {
      stats<decltype(type)>(head, chunk, block, result);
    });
  });
}

}  // namespace

CLS_INIT(dosna) {
  cls_handle_t handle;
  cls_method_handle_t method;
  cls_register("dosna", &handle);
  cls_register_cxx_method(handle, "version", CLS_METHOD_RD, version, &method);
  cls_register_cxx_method(handle, "mask", CLS_METHOD_RD, mask_method, &method);
  cls_register_cxx_method(handle, "filter", CLS_METHOD_RD, filter_method, &method);
  cls_register_cxx_method(handle, "take", CLS_METHOD_RD, take_method, &method);
  cls_register_cxx_method(handle, "stats", CLS_METHOD_RD, stats_method, &method);
}

// Matrix products whose left side may lie any way in memory, panel by panel of a few vectors' width.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kRows = 6;  // rows and vectors of a product held in registers
constexpr int kVectors = VECTOR_BYTES == 64 ? 4 : 2;

// The left side: entry (r, k) is at a distance that is linear in both, or in one and listed for the other.
template <class S>
struct Linear {
  const S* at;
  int64_t by_row, by_depth;
  INLINE S operator()(int64_t r, int64_t k) const { return at[r * by_row + k * by_depth]; }
};
template <class S>
struct ListedDepth {
  const S* at;
  int64_t by_row;
  const int64_t* list;
  INLINE S operator()(int64_t r, int64_t k) const { return at[r * by_row + list[k]]; }
};
template <class S>
struct ListedRows {
  const S* at;
  const int64_t* list;
  int64_t by_depth;
  INLINE S operator()(int64_t r, int64_t k) const { return at[list[r] + k * by_depth]; }
};

// Where the sums of a product start: at nothing, at what stands there, or each row at the same row.
enum Start { kZero, kThere, kRow };

template <class S>
struct Right {
  const S* at;
  int64_t by_depth;
};
template <class S>
struct Result {
  S* at;
  int64_t by_row;
  const S* start;  // with kRow
};

// c [R, NV vectors] = start + a [R, depth] b [depth, NV vectors], rows of a and c from `first` on
template <int R, int NV, Start B, class A, class S>
INLINE void product_block(const A& a, Right<S> b, Result<S> c, int64_t first, int64_t depth) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  V sum[R][NV];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < NV; v++)
      sum[r][v] = B == kZero ? V{} : load<V>((B == kRow ? c.start : c.at + (first + r) * c.by_row) + v * L);
  for (int64_t k = 0; k < depth; k++) {
    V right[NV];
    for (int v = 0; v < NV; v++) right[v] = load<V>(b.at + k * b.by_depth + v * L);
    for (int r = 0; r < R; r++) {
      const V left = spread<V>(a(first + r, k));
      for (int v = 0; v < NV; v++) sum[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < NV; v++) store(c.at + (first + r) * c.by_row + v * L, sum[r][v]);
}

template <int R, int NV, Start B, class A, class S>
INLINE void product_rest(const A& a, Right<S> b, Result<S> c, int64_t first, int64_t rows, int64_t depth) {
  if constexpr (R > 0) {
    if (rows - first == R) return product_block<R, NV, B>(a, b, c, first, depth);
    product_rest<R - 1, NV, B>(a, b, c, first, rows, depth);
  }
}

template <int NV, Start B, class A, class S>
void product_panel(const A a, const Right<S> b, const Result<S> c, int64_t rows, int64_t depth) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) product_block<kRows, NV, B>(a, b, c, r, depth);
  product_rest<kRows - 1, NV, B>(a, b, c, r, rows, depth);
}

template <Start B, class A, class S>
INLINE void product(int vectors, const A& a, Right<S> b, Result<S> c, int64_t rows, int64_t depth) {
  if (vectors == kVectors) return product_panel<kVectors, B>(a, b, c, rows, depth);
  if (vectors == 2) return product_panel<2, B>(a, b, c, rows, depth);
  product_panel<1, B>(a, b, c, rows, depth);
}

// Calls body(first column, vectors) for panels of columns [first, end): the widest that fit, then narrower ones.
template <class S, class F>
INLINE void panels(int64_t first, int64_t end, F body) {
  constexpr int L = Wide<S>::lanes;
  while (first < end) {
    const int64_t left = (end - first) / L;
    const int vectors = left >= kVectors ? kVectors : left >= 2 ? 2 : 1;
    body(first, vectors);
    first += vectors * L;
  }
}

struct Range {
  int64_t begin, end;
  // the share of one of so many, in whole units
  static INLINE Range share(int64_t size, int64_t unit, int me, int all) {
    const int64_t units = (size + unit - 1) / unit;
    return {std::min(size, units * me / all * unit), std::min(size, units * (me + 1) / all * unit)};
  }
};

// Memory that a thread keeps from call to call.
class Scratch {
 public:
  template <class S>
  S* get(int64_t count) {
    const size_t bytes = (count * sizeof(S) + 4095) / 4096 * 4096;
    if (bytes > size_) {
      std::free(data_);
      data_ = std::aligned_alloc(4096, bytes);
      size_ = bytes;
    }
    return static_cast<S*>(data_);
  }
  ~Scratch() { std::free(data_); }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace

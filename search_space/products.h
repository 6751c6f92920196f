// Matrix products whose left side may lie any way in memory and whose right side is a panel of a few vectors' width.
#pragma once
#include <algorithm>
#include <cstdlib>

#include "vectors.h"

namespace {

constexpr int kRows = 6;  // rows and vectors of a product held in registers
constexpr int kVectors = VECTOR_BYTES == 64 ? 4 : 2;

// c [R, NV vectors] (+)= a [R, depth] b [depth, NV vectors]; entry (r, k) of a is at r * by_row + k * by_depth, rows of
// b and c are so far apart
template <int R, int NV, bool Add, class S>
INLINE void product_block(const S* a, int64_t by_row, int64_t by_depth, const S* b, int64_t b_row, S* c, int64_t c_row,
                          int64_t depth) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  V sum[R][NV];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < NV; v++) sum[r][v] = Add ? load<V>(c + r * c_row + v * L) : V{};
  for (int64_t k = 0; k < depth; k++) {
    V right[NV];
    for (int v = 0; v < NV; v++) right[v] = load<V>(b + k * b_row + v * L);
    for (int r = 0; r < R; r++) {
      const V left = spread<V>(a[r * by_row + k * by_depth]);
      for (int v = 0; v < NV; v++) sum[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < NV; v++) store(c + r * c_row + v * L, sum[r][v]);
}

template <int R, int NV, bool Add, class S>
INLINE void product_rest(int64_t rows, const S* a, int64_t by_row, int64_t by_depth, const S* b, int64_t b_row, S* c, int64_t c_row,
                         int64_t depth) {
  if constexpr (R > 0) {
    if (rows == R) return product_block<R, NV, Add>(a, by_row, by_depth, b, b_row, c, c_row, depth);
    product_rest<R - 1, NV, Add>(rows, a, by_row, by_depth, b, b_row, c, c_row, depth);
  }
}

template <int NV, bool Add, class S>
void product_panel(const S* a, int64_t by_row, int64_t by_depth, const S* b, int64_t b_row, S* c, int64_t c_row, int64_t rows,
                   int64_t depth) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    product_block<kRows, NV, Add>(a + r * by_row, by_row, by_depth, b, b_row, c + r * c_row, c_row, depth);
  product_rest<kRows - 1, NV, Add>(rows - r, a + r * by_row, by_row, by_depth, b, b_row, c + r * c_row, c_row, depth);
}

template <bool Add, class S>
INLINE void product(int vectors, const S* a, int64_t by_row, int64_t by_depth, const S* b, int64_t b_row, S* c, int64_t c_row,
                    int64_t rows, int64_t depth) {
  if (vectors == kVectors) return product_panel<kVectors, Add>(a, by_row, by_depth, b, b_row, c, c_row, rows, depth);
  if (vectors == 2) return product_panel<2, Add>(a, by_row, by_depth, b, b_row, c, c_row, rows, depth);
  product_panel<1, Add>(a, by_row, by_depth, b, b_row, c, c_row, rows, depth);
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

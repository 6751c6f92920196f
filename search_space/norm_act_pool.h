// Norm, (leaky) ReLU and 2x2 pooling of one sample's channels-last maps, with first and second derivative.
//
// Maps are [h, w, c] in memory. Vectors run over channels, so that statistics need no sums across a vector and pooling
// no shuffles. A sample's channels are read two or three times while they are in the cache; nothing but the results is
// written. The formulas stand in fused.py.
#pragma once
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

enum Pool { kNone = 0, kAverage = 1, kMax = 2 };

template <class S>
struct Shape {
  int64_t n, h, w, c, groups;
  S slope, eps;
};

// What is known of each channel of a sample while its pixels are gone through.
template <class S>
struct Channels {
  std::vector<S> store;
  int64_t c;
  explicit Channels(int64_t rows, int64_t channels) : store(rows * channels), c(channels) {}
  S* operator[](int64_t row) { return store.data() + row * c; }
};

// Shares of the pooled value's gradient that the four places of a square get.
template <int P, class V, class S>
INLINE void shares(const V* y, V* share) {
  const V one = spread<V>(S(1)), none = V{};
  if (P == kMax) {  // the first largest, row by row
    V best = y[0];
    for (int k = 1; k < 4; k++) best = y[k] > best ? y[k] : best;
    V left = one;
    for (int k = 0; k < 4; k++) {
      V mine = y[k] == best ? left : none;
      share[k] = mine;
      left -= mine;
    }
  } else {
    for (int k = 0; k < 4; k++) share[k] = spread<V>(P == kAverage ? S(0.25) : S(1));
  }
}

// Calls body(offset of the square in the map, offset in the pooled map) for each square of K pixels of one sample.
template <int P, class F, class G>
INLINE void squares(int64_t h, int64_t w, int64_t c, F body, G end_of_row) {
  const int64_t step = P == kNone ? 1 : 2;
  for (int64_t i = 0; i < h; i += step) {
    for (int64_t j = 0; j < w; j += step) body((i * w + j) * c, ((i / step) * (w / step) + j / step) * c);
    end_of_row();
  }
}

template <int P>
INLINE int64_t place(int k, int64_t w, int64_t c) {
  return P == kNone ? 0 : ((k >> 1) * w + (k & 1)) * c;
}

template <int P>
constexpr int kPlaces = P == kNone ? 1 : 4;

// ---- passes over U vectors of channels of one sample; pointers are at the first of these channels ----------------

template <class V, int U, class T, class S>
INLINE void sum_pass(const T* x, int64_t pixels, int64_t c, const S* mean, S* total) {
  constexpr int L = sizeof(V) / sizeof(S);
  V all[U] = {}, middle[U];
  for (int u = 0; u < U; u++) middle[u] = mean ? load<V>(mean + u * L) : V{};
  for (int64_t begin = 0; begin < pixels; begin += 32) {  // sums of sums keep the rounding small
    const int64_t end = begin + 32 < pixels ? begin + 32 : pixels;
    V part[U] = {};
    for (int64_t p = begin; p < end; p++)
      for (int u = 0; u < U; u++) {
        V value = load<V>(x + p * c + u * L) - middle[u];
        part[u] += mean ? value * value : value;
      }
    for (int u = 0; u < U; u++) all[u] += part[u];
  }
  for (int u = 0; u < U; u++) store(total + u * L, all[u]);
}

enum { kMean, kRstd, kWeight, kBias, kFree };  // rows of Channels

template <class V, int U, int P, class X, class Y, class S>
INLINE void forward_pass(const Shape<S>& s, const X* x, Y* out, Channels<S>& ch, int64_t first) {
  constexpr int L = sizeof(V) / sizeof(S);
  V mean[U], rstd[U], weight[U], bias[U];
  for (int u = 0; u < U; u++) {
    mean[u] = load<V>(ch[kMean] + first + u * L), rstd[u] = load<V>(ch[kRstd] + first + u * L);
    weight[u] = load<V>(ch[kWeight] + first + u * L), bias[u] = load<V>(ch[kBias] + first + u * L);
  }
  const V slope = spread<V>(s.slope), none = V{};
  squares<P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        for (int u = 0; u < U; u++) {
          V a[4];
          for (int k = 0; k < kPlaces<P>; k++) {
            V y = (load<V>(x + at + place<P>(k, s.w, s.c) + u * L) - mean[u]) * rstd[u] * weight[u] + bias[u];
            a[k] = y > none ? y : y * slope;
          }
          V result = a[0];
          if (P == kAverage) result = (a[0] + a[1] + (a[2] + a[3])) * S(0.25);
          if (P == kMax)
            for (int k = 1; k < 4; k++) result = a[k] > result ? a[k] : result;
          store(out + pooled + u * L, result);
        }
      },
      [] {});
}

// Normalised value and gradient with respect to the norm's output, at the places of one square.
template <class V, int U, int P, class T, class S>
struct Point {
  V mean[U], rstd[U], weight[U], bias[U], slope;
  static constexpr int L = sizeof(V) / sizeof(S);

  INLINE Point(const Shape<S>& s, Channels<S>& ch, int64_t first) : slope(spread<V>(s.slope)) {
    for (int u = 0; u < U; u++) {
      mean[u] = load<V>(ch[kMean] + first + u * L), rstd[u] = load<V>(ch[kRstd] + first + u * L);
      weight[u] = load<V>(ch[kWeight] + first + u * L), bias[u] = load<V>(ch[kBias] + first + u * L);
    }
  }

  // xhat: normalised values; s: derivative of the pooled value with respect to each norm output
  INLINE void at(int u, const T* x, int64_t w, int64_t c, V* xhat, V* s) const {
    V y[4];
    for (int k = 0; k < kPlaces<P>; k++) {
      xhat[k] = (load<V>(x + place<P>(k, w, c)) - mean[u]) * rstd[u];
      y[k] = xhat[k] * weight[u] + bias[u];
    }
    V share[4];
    shares<P, V, S>(y, share);
    for (int k = 0; k < kPlaces<P>; k++) s[k] = y[k] > V{} ? share[k] : share[k] * slope;
  }
};

// sums[0] = sum of gy, sums[1] = sum of gy xhat
template <class V, int U, int P, class X, class G, class S>
INLINE void backward_sums(const Shape<S>& s, const X* x, const G* grad, Channels<S>& ch, int64_t first, S* s1, S* s2) {
  typedef Point<V, U, P, X, S> Points;
  constexpr int L = Points::L;
  const Points point(s, ch, first);
  V all1[U] = {}, all2[U] = {}, row1[U] = {}, row2[U] = {};
  squares<P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        for (int u = 0; u < U; u++) {
          V xhat[4], d[4];
          point.at(u, x + at + u * L, s.w, s.c, xhat, d);
          const V g = load<V>(grad + pooled + u * L);
          for (int k = 0; k < kPlaces<P>; k++) {
            row1[u] += d[k] * g;
            row2[u] += d[k] * g * xhat[k];
          }
        }
      },
      [&] {
        for (int u = 0; u < U; u++) {
          all1[u] += row1[u], all2[u] += row2[u];
          row1[u] = row2[u] = V{};
        }
      });
  for (int u = 0; u < U; u++) store(s1 + first + u * L, all1[u]), store(s2 + first + u * L, all2[u]);
}

// gx = by_gy gy + by_xhat xhat + constant
template <class V, int U, int P, class X, class G, class S>
INLINE void backward_pass(const Shape<S>& s, const X* x, const G* grad, X* out, Channels<S>& ch, int64_t first) {
  typedef Point<V, U, P, X, S> Points;
  constexpr int L = Points::L;
  const Points point(s, ch, first);
  V by_gy[U], by_xhat[U], constant[U];
  for (int u = 0; u < U; u++) {
    by_gy[u] = load<V>(ch[kFree] + first + u * L), by_xhat[u] = load<V>(ch[kFree + 1] + first + u * L);
    constant[u] = load<V>(ch[kFree + 2] + first + u * L);
  }
  squares<P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        for (int u = 0; u < U; u++) {
          V xhat[4], d[4];
          point.at(u, x + at + u * L, s.w, s.c, xhat, d);
          const V g = load<V>(grad + pooled + u * L);
          for (int k = 0; k < kPlaces<P>; k++)
            store(out + at + place<P>(k, s.w, s.c) + u * L,
                  d[k] * g * by_gy[u] + xhat[k] * by_xhat[u] + constant[u]);
        }
      },
      [] {});
}

// sums of v, v xhat, v gy, where v is the cotangent of gx
template <class V, int U, int P, class T, class S>
INLINE void second_sums(const Shape<S>& s, const T* x, const T* grad, const T* v, Channels<S>& ch, int64_t first,
                        S* total, S* along, S* energy) {
  typedef Point<V, U, P, T, S> Points;
  constexpr int L = Points::L;
  const Points point(s, ch, first);
  V all[3][U] = {}, row[3][U] = {};
  squares<P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        for (int u = 0; u < U; u++) {
          V xhat[4], d[4];
          point.at(u, x + at + u * L, s.w, s.c, xhat, d);
          const V g = load<V>(grad + pooled + u * L);
          for (int k = 0; k < kPlaces<P>; k++) {
            const V value = load<V>(v + at + place<P>(k, s.w, s.c) + u * L);
            row[0][u] += value;
            row[1][u] += value * xhat[k];
            row[2][u] += value * d[k] * g;
          }
        }
      },
      [&] {
        for (int q = 0; q < 3; q++)
          for (int u = 0; u < U; u++) all[q][u] += row[q][u], row[q][u] = V{};
      });
  for (int u = 0; u < U; u++) {
    store(total + first + u * L, all[0][u]), store(along + first + u * L, all[1][u]);
    store(energy + first + u * L, all[2][u]);
  }
}

// cotangents of grad (pooled sums of s (l1 v + l2 xhat + l0)) and of x (k1 v + k2 gy + k3 xhat + k0)
template <class V, int U, int P, class T, class S>
INLINE void second_pass(const Shape<S>& s, const T* x, const T* grad, const T* v, T* by_grad, T* by_x,
                        Channels<S>& ch, int64_t first) {
  typedef Point<V, U, P, T, S> Points;
  constexpr int L = Points::L;
  const Points point(s, ch, first);
  V l[3][U], m[4][U];
  for (int u = 0; u < U; u++) {
    for (int q = 0; q < 3; q++) l[q][u] = load<V>(ch[kFree + q] + first + u * L);
    for (int q = 0; q < 4; q++) m[q][u] = load<V>(ch[kFree + 3 + q] + first + u * L);
  }
  squares<P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        for (int u = 0; u < U; u++) {
          V xhat[4], d[4], sum = {};
          point.at(u, x + at + u * L, s.w, s.c, xhat, d);
          const V g = load<V>(grad + pooled + u * L);
          for (int k = 0; k < kPlaces<P>; k++) {
            const int64_t here = at + place<P>(k, s.w, s.c) + u * L;
            const V value = load<V>(v + here);
            sum += d[k] * (value * l[1][u] + xhat[k] * l[2][u] + l[0][u]);
            store(by_x + here, value * m[1][u] + d[k] * g * m[2][u] + xhat[k] * m[3][u] + m[0][u]);
          }
          store(by_grad + pooled + u * L, sum);
        }
      },
      [] {});
}

// ---- one sample at a time ----------------------------------------------------------------------------------------

// Runs body.template operator()<V, U>(first channel) over [begin, end): two vectors at a time, then one, then single.
template <class S, class F>
INLINE void blocks(int64_t begin, int64_t end, F body) {
  typedef typename Wide<S>::type V;
  constexpr int64_t L = Wide<S>::lanes;
  int64_t c = begin;
  for (; c + 2 * L <= end; c += 2 * L) body(V{}, std::integral_constant<int, 2>{}, c);
  for (; c + L <= end; c += L) body(V{}, std::integral_constant<int, 1>{}, c);
  for (; c < end; c++) body(S{}, std::integral_constant<int, 1>{}, c);
}

// Replaces per-channel values by the mean over their group's entries; nothing to share where a group is a channel.
template <class S>
INLINE void group_means(S* values, int64_t begin, int64_t end, int64_t size, int64_t pixels) {
  for (int64_t g = begin; g < end; g += size) {
    S total = 0;
    for (int64_t c = g; c < g + size; c++) total += values[c];
    for (int64_t c = g; c < g + size; c++) values[c] = total / S(size * pixels);
  }
}

// Channels that are gone through together: whole groups, and enough for two vectors.
template <class S>
INLINE int64_t span_of(const Shape<S>& s) {
  const int64_t size = s.groups ? s.c / s.groups : 1, two = 2 * Wide<S>::lanes;
  return size >= two ? size : (two / size) * size;
}

// Entries of a sample after the pooling.
template <class S>
INLINE int64_t pooled_size(const Shape<S>& s, int pool) {
  return s.h * s.w * s.c / (pool == kNone ? 1 : 4);
}

// Norm, activation and pooling of one sample; mean and rstd of each channel are kept for the derivatives.
template <int P, class X, class Y, class S>
void forward_sample(const Shape<S>& s, const X* x, Y* out, Channels<S>& ch, S* mean, S* rstd) {
  const int64_t pixels = s.h * s.w, size = s.groups ? s.c / s.groups : 1, span = span_of(s);
  S *middle = ch[kMean], *scale = ch[kRstd];
  for (int64_t begin = 0; begin < s.c; begin += span) {
    const int64_t end = begin + span < s.c ? begin + span : s.c;
    if (s.groups) {
      blocks<S>(begin, end, [&](auto v, auto u, int64_t c) {
        sum_pass<decltype(v), u.value>(x + c, pixels, s.c, (const S*)nullptr, middle + c);
      });
      group_means(middle, begin, end, size, pixels);
      blocks<S>(begin, end, [&](auto v, auto u, int64_t c) {
        sum_pass<decltype(v), u.value>(x + c, pixels, s.c, middle + c, scale + c);
      });
      group_means(scale, begin, end, size, pixels);
    }
    for (int64_t c = begin; c < end; c++) {
      middle[c] = s.groups ? middle[c] : S(0);
      scale[c] = s.groups ? S(1) / std::sqrt(scale[c] + s.eps) : S(1);
      mean[c] = middle[c], rstd[c] = scale[c];
    }
    blocks<S>(begin, end, [&](auto v, auto u, int64_t c) {
      forward_pass<decltype(v), u.value, P>(s, x + c, out + c, ch, c);
    });
  }
}

template <class S>
INLINE void recall(Channels<S>& ch, const S* mean, const S* rstd, const S* weight, const S* bias) {
  const size_t bytes = ch.c * sizeof(S);
  std::memcpy(ch[kMean], mean, bytes), std::memcpy(ch[kRstd], rstd, bytes);
  std::memcpy(ch[kWeight], weight, bytes), std::memcpy(ch[kBias], bias, bytes);
}

// The gradient by one sample's x, which may take its place, and the sums that make those by weight and bias.
template <int P, class X, class G, class S>
void backward_sample(const Shape<S>& s, const X* x, const G* grad, X* by_x, Channels<S>& ch, S* s1, S* s2) {
  const int64_t pixels = s.h * s.w, size = s.groups ? s.c / s.groups : 1, span = span_of(s);
  const S* weight = ch[kWeight];
  for (int64_t begin = 0; begin < s.c; begin += span) {
    const int64_t end = begin + span < s.c ? begin + span : s.c;
    S *by_gy = ch[kFree], *by_xhat = ch[kFree + 1], *constant = ch[kFree + 2];
    if (s.groups) {
      blocks<S>(begin, end, [&](auto v, auto u, int64_t c) {
        backward_sums<decltype(v), u.value, P>(s, x + c, grad + c, ch, c, s1, s2);
      });
      for (int64_t c = begin; c < end; c++) constant[c] = weight[c] * s1[c], by_xhat[c] = weight[c] * s2[c];
      group_means(constant, begin, end, size, pixels);
      group_means(by_xhat, begin, end, size, pixels);
    }
    for (int64_t c = begin; c < end; c++) {
      const S r = ch[kRstd][c];
      by_gy[c] = r * weight[c];
      by_xhat[c] = s.groups ? -r * by_xhat[c] : S(0);
      constant[c] = s.groups ? -r * constant[c] : S(0);
    }
    blocks<S>(begin, end, [&](auto v, auto u, int64_t c) {
      backward_pass<decltype(v), u.value, P>(s, x + c, grad + c, by_x + c, ch, c);
    });
  }
}

}  // namespace

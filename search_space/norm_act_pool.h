// Norm, activation and 2x2 pooling of one sample's channels-last maps, with first and second derivative.
//
// Maps are [h, w, c] in memory. Vectors run over channels, so that statistics need no sums across a vector and pooling
// no shuffles. A sample's channels are read two or three times while they are in the cache; nothing but the results is
// written. The formulas stand in fused.py.
#pragma once
#include <cmath>
#include <vector>

#include "activations.h"

namespace {

// What the norm's mean and variance are of: nothing, a group of a sample's channels, a channel of the whole batch.
enum Over { kNothing = 0, kSample = 1, kBatch = 2 };

template <class S>
struct Shape {
  int64_t n, h, w, c, groups;
  Over over;
  bool affine;  // whether there are a weight and a bias, and so their gradients
  S eps;
  double number;                                  // of the activation
  const S *weights = nullptr, *biases = nullptr;  // [h, w, c] where they are per element

  int64_t pixels() const { return h * w; }
  int64_t sample() const { return h * w * c; }
  int64_t pooled(int pool) const { return sample() / (pool == kNone ? 1 : 4); }
  // channels of a group; one where nothing is shared between channels
  int64_t group() const { return over == kSample ? c / groups : 1; }
  // channels that are gone through together: whole groups, and enough for two vectors
  int64_t span() const {
    const int64_t size = group(), two = 2 * Wide<S>::lanes;
    return size >= two ? size : (two / size) * size;
  }
};

// What is known of each channel of a sample while its pixels are gone through.
template <class S>
struct Channels {
  std::vector<S> store;
  int64_t c;
  explicit Channels(int64_t rows, int64_t channels) : store(rows * channels), c(channels) {}
  S* operator[](int64_t row) { return store.data() + row * c; }
};

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

// ---- passes over a vector of channels of one sample --------------------------------------------------------------

template <class V, class T, class S>
INLINE void sum_pass(const T* x, int64_t pixels, int64_t c, const S* mean, S* total) {
  const V middle = mean ? load<V>(mean) : V{};
  V all = {};
  for (int64_t begin = 0; begin < pixels; begin += 32) {  // sums of sums keep the rounding small
    const int64_t end = begin + 32 < pixels ? begin + 32 : pixels;
    V part = {};
    for (int64_t p = begin; p < end; p++) {
      const V value = load<V>(x + p * c) - middle;
      part += mean ? value * value : value;
    }
    all += part;
  }
  store(total, all);
}

enum { kMean, kRstd, kWeight, kBias, kFree };  // rows of Channels

// The norm's output at the places of one square, and what is asked for there. `at` is where the square's first place
// stands in the sample, as seen from the first of these channels.
template <class H, class V, class T, class S>
struct Point {
  static constexpr int P = H::P;
  V mean, rstd, weight, bias;
  const S *weights, *biases;
  const T* x;
  int64_t w, c;
  typename H::Act act;

  INLINE Point(const Shape<S>& s, const T* sample, Channels<S>& ch, int64_t first)
      : weights(H::E ? s.weights + first : nullptr),
        biases(H::E ? s.biases + first : nullptr),
        x(sample + first),
        w(s.w),
        c(s.c),
        act(s.number) {
    mean = load<V>(ch[kMean] + first), rstd = load<V>(ch[kRstd] + first);
    if (!H::E) weight = load<V>(ch[kWeight] + first), bias = load<V>(ch[kBias] + first);
  }

  INLINE int64_t entry(int64_t at, int k) const { return at + place<P>(k, w, c); }

  INLINE V pooled(int64_t at) const {
    V y[4];
    for (int k = 0; k < kPlaces<P>; k++) y[k] = output(at, k, normalised(at, k));
    return act.template pooled<P>(y);
  }
  // xhat: normalised values; d: derivative of the pooled value with respect to each norm output
  INLINE void at(int64_t at, V* xhat, V* d) const {
    V y[4];
    for (int k = 0; k < kPlaces<P>; k++) {
      xhat[k] = normalised(at, k);
      y[k] = output(at, k, xhat[k]);
    }
    act.template derivatives<P>(y, d);
  }
  // and the second derivatives, where the activation is curved
  INLINE void at(int64_t here, V* xhat, V* d, V* curve) const {
    if (!H::Act::curved) return at(here, xhat, d);
    V y[4];
    for (int k = 0; k < kPlaces<P>; k++) {
      xhat[k] = normalised(here, k);
      y[k] = output(here, k, xhat[k]);
    }
    act.template derivatives<P>(y, d, curve);
  }
  // the same, d with respect to each normalised value where weights are per element
  INLINE void weighted(int64_t here, V* xhat, V* d) const {
    at(here, xhat, d);
    for (int k = 0; H::E && k < kPlaces<P>; k++) d[k] *= load<V>(weights + entry(here, k));
  }

 private:
  INLINE V normalised(int64_t at, int k) const { return (load<V>(x + entry(at, k)) - mean) * rstd; }
  INLINE V output(int64_t at, int k, V xhat) const {
    if (!H::E) return xhat * weight + bias;
    return xhat * load<V>(weights + entry(at, k)) + load<V>(biases + entry(at, k));
  }
};

template <class H, class V, class X, class Y, class S>
INLINE void forward_pass(const Shape<S>& s, const X* x, Y* out, Channels<S>& ch, int64_t first) {
  const Point<H, V, X, S> point(s, x, ch, first);
  squares<H::P>(
      s.h, s.w, s.c, [&](int64_t at, int64_t pooled) { store(out + first + pooled, point.pooled(at)); }, [] {});
}

// s1 = sum of gy, s2 = sum of gy xhat; with weights per element of w gy and w gy xhat
template <class H, class V, class X, class G, class S>
INLINE void backward_sums(const Shape<S>& s, const X* x, const G* grad, Channels<S>& ch, int64_t first, S* s1, S* s2) {
  const Point<H, V, X, S> point(s, x, ch, first);
  V all1 = {}, all2 = {}, row1 = {}, row2 = {};
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        V xhat[4], d[4];
        point.weighted(at, xhat, d);
        const V g = load<V>(grad + first + pooled);
        for (int k = 0; k < kPlaces<H::P>; k++) {
          row1 += d[k] * g;
          row2 += d[k] * g * xhat[k];
        }
      },
      [&] {
        all1 += row1, all2 += row2;
        row1 = row2 = V{};
      });
  store(s1 + first, all1), store(s2 + first, all2);
}

// gx = by_gy gy + by_xhat xhat + constant
template <class H, class V, class X, class G, class S>
INLINE void backward_pass(const Shape<S>& s, const X* x, const G* grad, X* out, Channels<S>& ch, int64_t first) {
  const Point<H, V, X, S> point(s, x, ch, first);
  const V by_gy = load<V>(ch[kFree] + first), by_xhat = load<V>(ch[kFree + 1] + first);
  const V constant = load<V>(ch[kFree + 2] + first);
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        V xhat[4], d[4];
        point.weighted(at, xhat, d);
        const V g = load<V>(grad + first + pooled);
        for (int k = 0; k < kPlaces<H::P>; k++)
          store(out + first + point.entry(at, k), d[k] * g * by_gy + xhat[k] * by_xhat + constant);
      },
      [] {});
}

// Calls body as `squares` does, for the squares of one row.
template <int P, class S, class F>
INLINE void along_row(const Shape<S>& s, int64_t row, F body) {
  constexpr int64_t step = P == kNone ? 1 : 2;
  for (int64_t j = 0; j < s.w; j += step)
    body((row * s.w + j) * s.c, ((row / step) * (s.w / step) + j / step) * s.c);
}

// What a row of squares of one sample adds to the gradients of weights and biases per element.
template <class H, class V, class X, class G, class S>
INLINE void element_pass(const Shape<S>& s, const X* x, const G* grad, Channels<S>& ch, int64_t first, int64_t row,
                         S* by_weights, S* by_biases) {
  const Point<H, V, X, S> point(s, x, ch, first);
  along_row<H::P>(s, row, [&](int64_t at, int64_t pooled) {
    V xhat[4], d[4];
    point.at(at, xhat, d);
    const V g = load<V>(grad + first + pooled);
    for (int k = 0; k < kPlaces<H::P>; k++) {
      const int64_t here = first + point.entry(at, k);
      store(by_weights + here, load<V>(by_weights + here) + d[k] * g * xhat[k]);
      store(by_biases + here, load<V>(by_biases + here) + d[k] * g);
    }
  });
}

// ---- one sample at a time ----------------------------------------------------------------------------------------

// Calls body(vector or number, first channel) over [begin, end): a vector at a time, what is left one by one.
template <class S, class F>
INLINE void blocks(int64_t begin, int64_t end, F body) {
  typedef typename Wide<S>::type V;
  int64_t c = begin;
  for (; c + Wide<S>::lanes <= end; c += Wide<S>::lanes) body(V{}, c);
  for (; c < end; c++) body(S{}, c);
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

enum Steps { kSums = 1, kPass = 2, kBoth = 3 };  // of a batch's norm each sample's sums come first

// Norm, activation and pooling of one sample; mean and rstd of each channel are kept for the derivatives. Of a batch's
// norm the first step leaves the sample's own mean and variance there, and the second finds those of the batch.
template <class H, class X, class Y, class S>
void forward_sample(const Shape<S>& s, const X* x, Y* out, Channels<S>& ch, S* mean, S* rstd, Steps steps = kBoth) {
  const int64_t size = s.group(), span = s.span();
  S *middle = ch[kMean], *scale = ch[kRstd];
  for (int64_t begin = 0; begin < s.c; begin += span) {
    const int64_t end = begin + span < s.c ? begin + span : s.c;
    if (s.over != kNothing && (steps & kSums)) {
      blocks<S>(begin, end, [&](auto v, int64_t c) {
        sum_pass<decltype(v)>(x + c, s.pixels(), s.c, (const S*)nullptr, middle + c);
      });
      group_means(middle, begin, end, size, s.pixels());
      blocks<S>(begin, end, [&](auto v, int64_t c) {
        sum_pass<decltype(v)>(x + c, s.pixels(), s.c, middle + c, scale + c);
      });
      group_means(scale, begin, end, size, s.pixels());
      for (int64_t c = begin; c < end; c++) {
        mean[c] = middle[c];
        rstd[c] = s.over == kBatch ? scale[c] : S(1) / std::sqrt(scale[c] + s.eps);
      }
    }
    if (!(steps & kPass)) continue;
    for (int64_t c = begin; c < end; c++) {
      if (s.over == kNothing) mean[c] = S(0), rstd[c] = S(1);
      middle[c] = mean[c], scale[c] = rstd[c];
    }
    blocks<S>(begin, end, [&](auto v, int64_t c) { forward_pass<H, decltype(v)>(s, x, out, ch, c); });
  }
}

template <class S>
INLINE void recall(Channels<S>& ch, const S* mean, const S* rstd, const S* weight, const S* bias) {
  const size_t bytes = ch.c * sizeof(S);
  std::memcpy(ch[kMean], mean, bytes), std::memcpy(ch[kRstd], rstd, bytes);
  if (weight) std::memcpy(ch[kWeight], weight, bytes), std::memcpy(ch[kBias], bias, bytes);
}

// The gradient by one sample's x, which may take its place, and the sums that make those by weight and bias. The second
// step of a batch's norm is given the means of the whole batch's sums.
template <class H, class X, class G, class S>
void backward_sample(const Shape<S>& s, const X* x, const G* grad, X* by_x, Channels<S>& ch, S* s1, S* s2,
                     Steps steps = kBoth, const S* mean1 = nullptr, const S* mean2 = nullptr) {
  const int64_t size = s.group(), span = s.span();
  const S* weight = ch[kWeight];
  for (int64_t begin = 0; begin < s.c; begin += span) {
    const int64_t end = begin + span < s.c ? begin + span : s.c;
    S *by_gy = ch[kFree], *by_xhat = ch[kFree + 1], *constant = ch[kFree + 2];
    if ((steps & kSums) && (s.over != kNothing || s.affine))
      blocks<S>(begin, end, [&](auto v, int64_t c) { backward_sums<H, decltype(v)>(s, x, grad, ch, c, s1, s2); });
    if (!(steps & kPass)) continue;
    for (int64_t c = begin; c < end; c++) {
      const S w = H::E ? S(1) : weight[c];
      constant[c] = by_xhat[c] = S(0);
      if (s.over == kSample) constant[c] = w * s1[c], by_xhat[c] = w * s2[c];
      if (s.over == kBatch) constant[c] = w * mean1[c], by_xhat[c] = w * mean2[c];
      by_gy[c] = ch[kRstd][c] * w;
    }
    if (s.over == kSample) {
      group_means(constant, begin, end, size, s.pixels());
      group_means(by_xhat, begin, end, size, s.pixels());
    }
    for (int64_t c = begin; c < end; c++) constant[c] *= -ch[kRstd][c], by_xhat[c] *= -ch[kRstd][c];
    blocks<S>(begin, end, [&](auto v, int64_t c) { backward_pass<H, decltype(v)>(s, x, grad, by_x, ch, c); });
  }
}

}  // namespace

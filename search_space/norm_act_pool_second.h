// Second derivative of norm, activation and pooling of a batch of channels-last maps; the formulas stand in fused.py.
//
// A sample's channels are gone through for the sums that the norm's means are made of, once more where the activation is
// curved, as what its curvature adds has means of its own, and then for the results.
#pragma once
#include "norm_act_pool_batch.h"

namespace {

// Sums over a sample's entries: v, v xhat, v gy, h, h xhat, where h is what the curvature adds to the cotangent of y.
// With weights per element v w gy, w h, w h xhat instead, and those of vw gy and vw gy xhat.
enum Sums { kV, kVXhat, kVGy, kH, kHXhat, kQ, kQXhat, kSumRows };
// Means over the norm's entries: v, v xhat, v w gy, w gy, w gy xhat, vw gy, vw gy xhat; and w h, w h xhat.
enum Means { kMeanV, kMeanVXhat, kMeanVGy, kMeanGy, kMeanGyXhat, kMeanQ, kMeanQXhat, kMeanH, kMeanHXhat, kMeanRows };
// Rows of Channels: the cotangent of gy by v and xhat, and its constant; that of x by v, gy and xhat, and its constant.
enum Rows { kUV = kFree, kUXhat, kU, kXV, kXGy, kXXhat, kX, kRowsOfSecond };

// What is known of a sample. v, v_weight, v_bias: the cotangents of the gradients by x, weight and bias.
template <class T, class S>
struct Given {
  const T *x, *grad, *v;
  const S *v_weight, *v_bias;
};

// The entries of one square, with all that the second derivative needs of them.
template <class H, class V, class T, class S>
struct Square {
  const Point<H, V, T, S> point;
  const T *grad, *v;
  const S *v_weights, *v_biases;
  V v_weight, v_bias, u_v, u_xhat, u;
  V g, xhat[4], d[4], curve[4];

  INLINE Square(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first)
      : point(s, given.x, ch, first),
        grad(given.grad + first),
        v(given.v + first),
        v_weights(given.v_weight + first),
        v_biases(given.v_bias + first) {
    if (!H::E) v_weight = load<V>(v_weights), v_bias = load<V>(v_biases);
    u_v = load<V>(ch[kUV] + first), u_xhat = load<V>(ch[kUXhat] + first), u = load<V>(ch[kU] + first);
  }
  INLINE void go_to(int64_t at, int64_t pooled) {
    point.at(at, xhat, d, curve);
    g = load<V>(grad + pooled);
  }
  INLINE V gy(int k) const { return d[k] * g; }
  INLINE V along(int64_t entry) const { return load<V>(v + entry); }
  INLINE V weight(int64_t entry) const { return H::E ? load<V>(point.weights + entry) : point.weight; }
  // r (v - A - xhat C) with weights per element, and else the whole cotangent of gy
  INLINE V centred(int64_t entry, int k) const { return along(entry) * u_v + xhat[k] * u_xhat + u; }
  INLINE V of_gy(int64_t entry, int k) const {
    if (!H::E) return centred(entry, k);
    return weight(entry) * centred(entry, k) + load<V>(v_weights + entry) * xhat[k] + load<V>(v_biases + entry);
  }
  INLINE V of_y(int64_t entry, int k) const { return of_gy(entry, k) * g * curve[k]; }
};

// Sums of sums keep the rounding small.
template <int N, class V>
struct Totals {
  V all[N] = {}, row[N] = {};
  INLINE void end_of_row() {
    for (int q = 0; q < N; q++) all[q] += row[q], row[q] = V{};
  }
};

template <class H, class V, class T, class S>
INLINE void second_sums(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first, Channels<S>& sums) {
  Square<H, V, T, S> square(s, given, ch, first);
  Totals<H::E ? 5 : 3, V> total;
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        square.go_to(at, pooled);
        for (int k = 0; k < kPlaces<H::P>; k++) {
          const int64_t entry = square.point.entry(at, k);
          const V v = square.along(entry), gy = square.gy(k);
          total.row[0] += v;
          total.row[1] += v * square.xhat[k];
          total.row[2] += H::E ? v * gy * square.weight(entry) : v * gy;
          if constexpr (H::E) {
            const V q = load<V>(square.v_weights + entry) * gy;
            total.row[3] += q;
            total.row[4] += q * square.xhat[k];
          }
        }
      },
      [&] { total.end_of_row(); });
  store(sums[kV] + first, total.all[0]), store(sums[kVXhat] + first, total.all[1]);
  store(sums[kVGy] + first, total.all[2]);
  if constexpr (H::E) store(sums[kQ] + first, total.all[3]), store(sums[kQXhat] + first, total.all[4]);
}

template <class H, class V, class T, class S>
INLINE void curve_sums(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first, Channels<S>& sums) {
  Square<H, V, T, S> square(s, given, ch, first);
  Totals<2, V> total;
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        square.go_to(at, pooled);
        for (int k = 0; k < kPlaces<H::P>; k++) {
          const int64_t entry = square.point.entry(at, k);
          const V h = H::E ? square.of_y(entry, k) * square.weight(entry) : square.of_y(entry, k);
          total.row[0] += h;
          total.row[1] += h * square.xhat[k];
        }
      },
      [&] { total.end_of_row(); });
  store(sums[kH] + first, total.all[0]), store(sums[kHXhat] + first, total.all[1]);
}

template <class H, class V, class T, class S>
INLINE void second_pass(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first, T* by_grad,
                        T* by_x) {
  Square<H, V, T, S> square(s, given, ch, first);
  const V by_v = load<V>(ch[kXV] + first), by_gy = load<V>(ch[kXGy] + first), by_xhat = load<V>(ch[kXXhat] + first);
  const V constant = load<V>(ch[kX] + first), rstd = square.point.rstd;
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        square.go_to(at, pooled);
        V sum = {};
        for (int k = 0; k < kPlaces<H::P>; k++) {
          const int64_t entry = square.point.entry(at, k);
          V of_x = square.along(entry) * by_v + square.xhat[k] * by_xhat + constant;
          if constexpr (H::E)
            of_x += square.gy(k) * (square.weight(entry) * by_gy + load<V>(square.v_weights + entry) * rstd);
          else
            of_x += square.gy(k) * by_gy;
          if constexpr (H::Act::curved) of_x += square.of_y(entry, k) * square.weight(entry) * rstd;
          sum += square.d[k] * square.of_gy(entry, k);
          store(by_x + first + entry, of_x);
        }
        store(by_grad + first + pooled, sum);
      },
      [] {});
}

// What a row of squares of one sample adds to the gradients by weights and biases per element.
template <class H, class V, class T, class S>
INLINE void second_element_pass(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first,
                                int64_t row, S* by_weights, S* by_biases) {
  Square<H, V, T, S> square(s, given, ch, first);
  along_row<H::P>(s, row, [&](int64_t at, int64_t pooled) {
    square.go_to(at, pooled);
    for (int k = 0; k < kPlaces<H::P>; k++) {
      const int64_t entry = square.point.entry(at, k), here = first + entry;
      V sum = load<V>(by_weights + here) + square.gy(k) * square.centred(entry, k);
      if constexpr (H::Act::curved) {
        const V h = square.of_y(entry, k);
        sum += h * square.xhat[k];
        store(by_biases + here, load<V>(by_biases + here) + h);
      }
      store(by_weights + here, sum);
    }
  });
}

// A call's tensors, and the steps by which a sample's channels [begin, end) are gone through.
template <class H, class T, class S>
struct Second {
  const Shape<S>& s;
  const Given<T, S> batch;
  const S *weight, *bias, *mean, *rstd, *sum1, *sum2;
  T *by_grad, *by_x;
  S *by_weight, *by_bias;  // [n, c], to be summed over samples; with weights per element [h, w, c], zero before, or none

  Given<T, S> given(int64_t n) const {
    return {batch.x + n * s.sample(), batch.grad + n * s.pooled(H::P), batch.v + n * s.sample(), batch.v_weight,
            batch.v_bias};
  }
  void recall_sample(Channels<S>& ch, int64_t n) const {
    recall(ch, mean + n * s.c, rstd + n * s.c, H::E ? nullptr : weight, bias);
  }
  void first_sums(int64_t n, int64_t begin, int64_t end, Channels<S>& ch, Channels<S>& sums) const {
    blocks<S>(begin, end, [&](auto v, int64_t c) { second_sums<H, decltype(v)>(s, given(n), ch, c, sums); });
  }
  void sums_of_curve(int64_t n, int64_t begin, int64_t end, Channels<S>& ch, Channels<S>& sums) const {
    blocks<S>(begin, end, [&](auto v, int64_t c) { curve_sums<H, decltype(v)>(s, given(n), ch, c, sums); });
  }

  // Adds the sums whose means are asked for, those known first or those of the curvature.
  void add(bool curve, int64_t n, int64_t begin, int64_t end, Channels<S>& sums, Channels<S>& total) const {
    const S *s1 = sum1 + n * s.c, *s2 = sum2 + n * s.c;
    for (int64_t c = begin; c < end; c++) {
      const S w = H::E ? S(1) : weight[c];
      if (curve) {
        total[kMeanH][c] += w * sums[kH][c], total[kMeanHXhat][c] += w * sums[kHXhat][c];
        continue;
      }
      total[kMeanV][c] += sums[kV][c], total[kMeanVXhat][c] += sums[kVXhat][c];
      total[kMeanVGy][c] += w * sums[kVGy][c];
      total[kMeanGy][c] += w * s1[c], total[kMeanGyXhat][c] += w * s2[c];
      total[kMeanQ][c] += H::E ? sums[kQ][c] : batch.v_weight[c] * s1[c];
      total[kMeanQXhat][c] += H::E ? sums[kQXhat][c] : batch.v_weight[c] * s2[c];
    }
  }
  // The means of one sample's groups; nothing where there is no norm.
  void share(bool curve, int64_t n, int64_t begin, int64_t end, Channels<S>& sums, Channels<S>& means) const {
    const int from = curve ? kMeanH : kMeanV, to = curve ? kMeanRows : kMeanH;
    for (int row = from; row < to; row++) std::fill(means[row] + begin, means[row] + end, S(0));
    if (s.over != kSample) return;
    add(curve, n, begin, end, sums, means);
    for (int row = from; row < to; row++) group_means(means[row], begin, end, s.group(), s.pixels());
  }

  // u = w r (v - A - xhat C) + vw xhat + vb; where weights are per element without these
  void plan_of_gy(int64_t begin, int64_t end, Channels<S>& means, Channels<S>& ch) const {
    for (int64_t c = begin; c < end; c++) {
      const S scale = ch[kRstd][c] * (H::E ? S(1) : weight[c]);
      ch[kUV][c] = scale;
      ch[kUXhat][c] = (H::E ? S(0) : batch.v_weight[c]) - scale * means[kMeanVXhat][c];
      ch[kU][c] = (H::E ? S(0) : batch.v_bias[c]) - scale * means[kMeanV][c];
    }
  }
  void results(int64_t n, int64_t begin, int64_t end, Channels<S>& ch, Channels<S>& sums, Channels<S>& means) const {
    const S *s1 = sum1 + n * s.c, *s2 = sum2 + n * s.c;
    for (int64_t c = begin; c < end; c++) {
      const S r = ch[kRstd][c], a = means[kMeanV][c], b = means[kMeanGy][c], along = means[kMeanVXhat][c];
      const S d = means[kMeanGyXhat][c], e = means[kMeanVGy][c];
      S q = means[kMeanQ][c], q_xhat = means[kMeanQXhat][c];
      if (H::Act::curved) q += means[kMeanH][c], q_xhat += means[kMeanHXhat][c];
      ch[kXV][c] = -r * r * d;
      ch[kXGy][c] = H::E ? -r * r * along : r * (batch.v_weight[c] - r * weight[c] * along);
      ch[kXXhat][c] = -r * (q_xhat - 2 * r * along * d) - r * r * (e - a * b - along * d);
      ch[kX][c] = -r * (q - r * (a * d + b * along));
      if (H::E) continue;
      by_weight[n * s.c + c] = r * (sums[kVGy][c] - a * s1[c] - along * s2[c]);
      if (H::Act::curved) by_weight[n * s.c + c] += sums[kHXhat][c], by_bias[n * s.c + c] = sums[kH][c];
    }
    blocks<S>(begin, end, [&](auto v, int64_t c) {
      second_pass<H, decltype(v)>(s, given(n), ch, c, by_grad + n * s.pooled(H::P), by_x + n * s.sample());
    });
  }
};

// One sample after another.
template <class H, class T, class S>
void second_of_samples(const Second<H, T, S>& call, int threads) {
  const Shape<S>& s = call.s;
  const int64_t span = s.span();
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kRowsOfSecond, s.c), sums(kSumRows, s.c), means(kMeanRows, s.c);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) {
      call.recall_sample(ch, n);
      for (int64_t begin = 0; begin < s.c; begin += span) {
        const int64_t end = begin + span < s.c ? begin + span : s.c;
        if (s.over != kNothing || s.affine) call.first_sums(n, begin, end, ch, sums);
        call.share(false, n, begin, end, sums, means);
        call.plan_of_gy(begin, end, means, ch);
        if (H::Act::curved) {
          if (s.over != kNothing || s.affine) call.sums_of_curve(n, begin, end, ch, sums);
          call.share(true, n, begin, end, sums, means);
        }
        call.results(n, begin, end, ch, sums, means);
      }
    }
  }
}

// With means over the batch: all samples' sums first.
template <class H, class T, class S>
void second_of_batch(const Second<H, T, S>& call, int threads) {
  const Shape<S>& s = call.s;
  std::vector<Channels<S>> sums(s.n, Channels<S>(kSumRows, s.c));
  Channels<S> means(kMeanRows, s.c);
  const auto gather = [&](bool curve) {
    for (int64_t n = 0; n < s.n; n++) call.add(curve, n, 0, s.c, sums[n], means);
    for (int row = curve ? kMeanH : kMeanV; row < (curve ? kMeanRows : kMeanH); row++)
      for (int64_t c = 0; c < s.c; c++) means[row][c] /= S(s.n * s.pixels());
  };
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kRowsOfSecond, s.c);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) call.recall_sample(ch, n), call.first_sums(n, 0, s.c, ch, sums[n]);
#pragma omp single
    gather(false);
    if (H::Act::curved) {
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.n; n++) {
        call.recall_sample(ch, n), call.plan_of_gy(0, s.c, means, ch);
        call.sums_of_curve(n, 0, s.c, ch, sums[n]);
      }
#pragma omp single
      gather(true);
    }
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) {
      call.recall_sample(ch, n), call.plan_of_gy(0, s.c, means, ch);
      call.results(n, 0, s.c, ch, sums[n], means);
    }
  }
}

// Gradients by weights and biases per element: rows of squares, each through the batch.
template <class H, class T, class S>
void second_elements(const Second<H, T, S>& call, int threads) {
  const Shape<S>& s = call.s;
  const int64_t step = H::P == kNone ? 1 : 2;
  std::vector<Channels<S>> planned(s.n, Channels<S>(kRowsOfSecond, s.c));
#pragma omp parallel num_threads(threads)
  {
    Channels<S> sums(kSumRows, s.c), means(kMeanRows, s.c);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) {
      call.recall_sample(planned[n], n), call.first_sums(n, 0, s.c, planned[n], sums);
      call.share(false, n, 0, s.c, sums, means), call.plan_of_gy(0, s.c, means, planned[n]);
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < s.h; row += step)
      for (int64_t n = 0; n < s.n; n++)
        blocks<S>(0, s.c, [&](auto v, int64_t c) {
          second_element_pass<H, decltype(v)>(s, call.given(n), planned[n], c, row, call.by_weight, call.by_bias);
        });
  }
}

template <class H, class T, class S>
void second(const Second<H, T, S>& call, int threads) {
  if (call.s.over == kBatch) return second_of_batch(call, threads);
  second_of_samples(call, threads);
  if constexpr (H::E)
    if (call.by_weight) second_elements(call, threads);
}

}  // namespace

#define EXPORT_SECOND(WITH, SUFFIX, T, S)                                                                            \
  extern "C" void second_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const T* grad,            \
                                  const T* v, const S* weight, const S* bias, const S* mean, const S* rstd,          \
                                  const S* sum1, const S* sum2, const S* v_weight, const S* v_bias, T* by_grad,      \
                                  T* by_x, S* by_weight, S* by_bias) {                                               \
    const Shape<S> s = shape_of(sizes, numbers, weight, bias);                                                       \
    WITH<S>(sizes + 5, [&](auto how) {                                                                               \
      second(Second<decltype(how), T, S>{s, {x, grad, v, v_weight, v_bias}, weight, bias, mean, rstd, sum1, sum2,    \
                                         by_grad, by_x, by_weight, by_bias},                                         \
             int(sizes[4]));                                                                                         \
    });                                                                                                              \
  }

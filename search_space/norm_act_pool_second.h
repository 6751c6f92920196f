// Second derivative of norm, activation and pooling of a batch of channels-last maps; the formulas stand in fused.py.
//
// A sample's channels are gone through for the sums that the norm's means are made of, once more where the activation
// is curved, as what its curvature adds has means of its own, and then for the results.
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
  // Calls body(place, entry, v there) for the places of a square.
  template <class F>
  INLINE void each(int64_t at, int64_t pooled, F body) {
    point.at(at, xhat, d, curve);
    g = load<V>(grad + pooled);
    for (int k = 0; k < kPlaces<H::P>; k++) {
      const int64_t entry = point.entry(at, k);
      body(k, entry, load<V>(v + entry));
    }
  }
  INLINE V gy(int k) const { return d[k] * g; }
  INLINE V weight(int64_t entry) const { return H::E ? load<V>(point.weights + entry) : point.weight; }
  // r (v - A - xhat C) with weights per element, and else the whole cotangent of gy
  INLINE V centred(V v, int k) const { return v * u_v + xhat[k] * u_xhat + u; }
  INLINE V of_gy(V v, int64_t entry, int k) const {
    if (!H::E) return centred(v, k);
    return weight(entry) * centred(v, k) + load<V>(v_weights + entry) * xhat[k] + load<V>(v_biases + entry);
  }
  INLINE V of_y(V v, int64_t entry, int k) const { return of_gy(v, entry, k) * g * curve[k]; }
};

// Adds up what body(sums [N], place, entry, v there) adds at each entry; sums of sums keep the rounding small.
template <int N, class H, class V, class T, class S, class F>
INLINE void total_up(const Shape<S>& s, Square<H, V, T, S>& square, V* all, F body) {
  V row[N] = {};
  for (int q = 0; q < N; q++) all[q] = V{};
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        square.each(at, pooled, [&](int k, int64_t entry, V v) { body(row, k, entry, v); });
      },
      [&] {
        for (int q = 0; q < N; q++) all[q] += row[q], row[q] = V{};
      });
}

template <class H, class V, class T, class S>
INLINE void second_sums(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first,
                        Channels<S>& sums) {
  constexpr int N = H::E ? 5 : 3;
  Square<H, V, T, S> square(s, given, ch, first);
  V all[N];
  total_up<N>(s, square, all, [&](V* row, int k, int64_t entry, V v) {
    const V gy = square.gy(k);
    row[0] += v;
    row[1] += v * square.xhat[k];
    row[2] += H::E ? v * gy * square.weight(entry) : v * gy;
    if constexpr (H::E) {
      const V q = load<V>(square.v_weights + entry) * gy;
      row[3] += q;
      row[4] += q * square.xhat[k];
    }
  });
  store(sums[kV] + first, all[0]), store(sums[kVXhat] + first, all[1]), store(sums[kVGy] + first, all[2]);
  if constexpr (H::E) store(sums[kQ] + first, all[3]), store(sums[kQXhat] + first, all[4]);
}

template <class H, class V, class T, class S>
INLINE void curve_sums(const Shape<S>& s, const Given<T, S>& given, Channels<S>& ch, int64_t first, Channels<S>& sums) {
  Square<H, V, T, S> square(s, given, ch, first);
  V all[2];
  total_up<2>(s, square, all, [&](V* row, int k, int64_t entry, V v) {
    V h = square.of_y(v, entry, k);
    if (H::E) h *= square.weight(entry);
    row[0] += h;
    row[1] += h * square.xhat[k];
  });
  store(sums[kH] + first, all[0]), store(sums[kHXhat] + first, all[1]);
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
        V sum = {};
        square.each(at, pooled, [&](int k, int64_t entry, V v) {
          const V of_gy = square.of_gy(v, entry, k);
          V of_x = v * by_v + square.xhat[k] * by_xhat + constant;
          if constexpr (H::E)
            of_x += square.gy(k) * (square.weight(entry) * by_gy + load<V>(square.v_weights + entry) * rstd);
          else
            of_x += square.gy(k) * by_gy;
          if constexpr (H::Act::curved) of_x += of_gy * square.g * square.curve[k] * square.weight(entry) * rstd;
          sum += square.d[k] * of_gy;
          store(by_x + first + entry, of_x);
        });
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
    square.each(at, pooled, [&](int k, int64_t entry, V v) {
      const int64_t here = first + entry;
      V sum = load<V>(by_weights + here) + square.gy(k) * square.centred(v, k);
      if constexpr (H::Act::curved) {
        const V h = square.of_y(v, entry, k);
        sum += h * square.xhat[k];
        store(by_biases + here, load<V>(by_biases + here) + h);
      }
      store(by_weights + here, sum);
    });
  });
}

// A call's tensors, and the steps by which a sample's channels [begin, end) are gone through.
template <class H, class T, class S>
struct Second {
  const Shape<S>& s;
  const Given<T, S> batch;
  const S *weight, *bias, *mean, *rstd, *sum1, *sum2;
  T *by_grad, *by_x;
  // [n, c], to be summed over samples; with weights per element [h, w, c], zero before, or none
  S *by_weight, *by_bias;

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

  // The sums whose means are asked for, those known first or those of the curvature: a fresh total, or added to it.
  void add(bool curve, bool fresh, int64_t n, int64_t begin, int64_t end, Channels<S>& sums, Channels<S>& total) const {
    const S *s1 = sum1 + n * s.c, *s2 = sum2 + n * s.c;
    blocks<S>(begin, end, [&](auto lanes, int64_t c) {
      typedef decltype(lanes) V;
      const auto put = [&](int row, V value) {
        store(total[row] + c, fresh ? value : load<V>(total[row] + c) + value);
      };
      const V w = H::E ? spread<V>(S(1)) : load<V>(weight + c);
      if (curve) return put(kMeanH, w * load<V>(sums[kH] + c)), put(kMeanHXhat, w * load<V>(sums[kHXhat] + c));
      const V gy = load<V>(s1 + c), gy_xhat = load<V>(s2 + c);
      put(kMeanV, load<V>(sums[kV] + c)), put(kMeanVXhat, load<V>(sums[kVXhat] + c));
      put(kMeanVGy, w * load<V>(sums[kVGy] + c)), put(kMeanGy, w * gy), put(kMeanGyXhat, w * gy_xhat);
      put(kMeanQ, H::E ? load<V>(sums[kQ] + c) : load<V>(batch.v_weight + c) * gy);
      put(kMeanQXhat, H::E ? load<V>(sums[kQXhat] + c) : load<V>(batch.v_weight + c) * gy_xhat);
    });
  }
  // The means of one sample's groups; nothing where there is no norm.
  void share(bool curve, int64_t n, int64_t begin, int64_t end, Channels<S>& sums, Channels<S>& means) const {
    const int from = curve ? kMeanH : kMeanV, to = curve ? kMeanRows : kMeanH;
    if (s.over == kSample) add(curve, true, n, begin, end, sums, means);
    for (int row = from; row < to; row++) {
      if (s.over == kSample)
        group_means(means[row], begin, end, s.group(), s.pixels());
      else
        std::fill(means[row] + begin, means[row] + end, S(0));
    }
  }

  // u = w r (v - A - xhat C) + vw xhat + vb; where weights are per element without these
  void plan_of_gy(int64_t begin, int64_t end, Channels<S>& means, Channels<S>& ch) const {
    blocks<S>(begin, end, [&](auto lanes, int64_t c) {
      typedef decltype(lanes) V;
      V scale = load<V>(ch[kRstd] + c), by_xhat = {}, constant = {};
      if (!H::E) {
        scale *= load<V>(weight + c);
        by_xhat = load<V>(batch.v_weight + c), constant = load<V>(batch.v_bias + c);
      }
      store(ch[kUV] + c, scale);
      store(ch[kUXhat] + c, by_xhat - scale * load<V>(means[kMeanVXhat] + c));
      store(ch[kU] + c, constant - scale * load<V>(means[kMeanV] + c));
    });
  }
  void results(int64_t n, int64_t begin, int64_t end, Channels<S>& ch, Channels<S>& sums, Channels<S>& means) const {
    const S *s1 = sum1 + n * s.c, *s2 = sum2 + n * s.c;
    blocks<S>(begin, end, [&](auto lanes, int64_t c) {
      typedef decltype(lanes) V;
      const V r = load<V>(ch[kRstd] + c), a = load<V>(means[kMeanV] + c), b = load<V>(means[kMeanGy] + c);
      const V along = load<V>(means[kMeanVXhat] + c), d = load<V>(means[kMeanGyXhat] + c);
      const V e = load<V>(means[kMeanVGy] + c);
      V q = load<V>(means[kMeanQ] + c), q_xhat = load<V>(means[kMeanQXhat] + c);
      if (H::Act::curved) q += load<V>(means[kMeanH] + c), q_xhat += load<V>(means[kMeanHXhat] + c);
      V by_gy = -r * r * along;
      if (!H::E) by_gy = r * load<V>(batch.v_weight + c) + by_gy * load<V>(weight + c);
      store(ch[kXV] + c, -r * r * d), store(ch[kXGy] + c, by_gy);
      store(ch[kXXhat] + c, -r * (q_xhat - S(2) * r * along * d) - r * r * (e - a * b - along * d));
      store(ch[kX] + c, -r * (q - r * (a * d + b * along)));
      if (H::E) return;
      V of_weight = r * (load<V>(sums[kVGy] + c) - a * load<V>(s1 + c) - along * load<V>(s2 + c));
      if (H::Act::curved) {
        of_weight += load<V>(sums[kHXhat] + c);
        store(by_bias + n * s.c + c, load<V>(sums[kH] + c));
      }
      store(by_weight + n * s.c + c, of_weight);
    });
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
    for (int64_t n = 0; n < s.n; n++) call.add(curve, n == 0, n, 0, s.c, sums[n], means);
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

// Norm, (leaky) ReLU and 2x2 pooling of channels-last maps in one operation, with first and second derivative. And the
// whole first block of a network (image_block.h), whose norm, activation and pooling are the same.
#include "norm_act_pool_batch.h"

#include "image_block.h"

namespace {

// sums of v, v xhat, v gy, where v is the cotangent of gx
template <class H, class V, class T, class S>
INLINE void second_sums(const Shape<S>& s, const T* x, const T* grad, const T* v, Channels<S>& ch, int64_t first,
                        S* total, S* along, S* energy) {
  const Point<H, V, T, S> point(s, x, ch, first);
  V all[3] = {}, row[3] = {};
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        V xhat[4], d[4];
        point.at(at, xhat, d);
        const V g = load<V>(grad + first + pooled);
        for (int k = 0; k < kPlaces<H::P>; k++) {
          const V value = load<V>(v + first + point.entry(at, k));
          row[0] += value;
          row[1] += value * xhat[k];
          row[2] += value * d[k] * g;
        }
      },
      [&] {
        for (int q = 0; q < 3; q++) all[q] += row[q], row[q] = V{};
      });
  store(total + first, all[0]), store(along + first, all[1]), store(energy + first, all[2]);
}

// cotangents of grad (pooled sums of s (l1 v + l2 xhat + l0)) and of x (m1 v + m2 gy + m3 xhat + m0)
template <class H, class V, class T, class S>
INLINE void second_pass(const Shape<S>& s, const T* x, const T* grad, const T* v, T* by_grad, T* by_x,
                        Channels<S>& ch, int64_t first) {
  const Point<H, V, T, S> point(s, x, ch, first);
  V l[3], m[4];
  for (int q = 0; q < 3; q++) l[q] = load<V>(ch[kFree + q] + first);
  for (int q = 0; q < 4; q++) m[q] = load<V>(ch[kFree + 3 + q] + first);
  squares<H::P>(
      s.h, s.w, s.c,
      [&](int64_t at, int64_t pooled) {
        V xhat[4], d[4], sum = {};
        point.at(at, xhat, d);
        const V g = load<V>(grad + first + pooled);
        for (int k = 0; k < kPlaces<H::P>; k++) {
          const int64_t here = first + point.entry(at, k);
          const V value = load<V>(v + here);
          sum += d[k] * (value * l[1] + xhat[k] * l[2] + l[0]);
          store(by_x + here, value * m[1] + d[k] * g * m[2] + xhat[k] * m[3] + m[0]);
        }
        store(by_grad + first + pooled, sum);
      },
      [] {});
}

template <class S>
struct Group {  // means over a group's entries, per channel
  enum { kV, kVXhat, kVGy, kGy, kGyXhat, kQ, kQXhat, kRows };
};

template <class H, class T, class S>
void second(const Shape<S>& s, const T* x, const T* grad, const T* v, const S* weight, const S* bias, const S* mean,
            const S* rstd, const S* sum1, const S* sum2, const S* v_weight, const S* v_bias, T* by_grad, T* by_x,
            S* by_weight, int threads) {
  typedef Group<S> G;
  const int64_t size = s.group(), span = s.span(), sample = s.sample(), pooled = s.pooled(H::P);
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kFree + 7, s.c), g(G::kRows, s.c);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) {
      recall(ch, mean + n * s.c, rstd + n * s.c, weight, bias);
      const S *s1 = sum1 + n * s.c, *s2 = sum2 + n * s.c;
      const T *from = x + n * sample, *pull = grad + n * pooled, *along = v + n * sample;
      for (int64_t begin = 0; begin < s.c; begin += span) {
        const int64_t end = begin + span < s.c ? begin + span : s.c;
        if (s.over == kSample || s.affine)
          blocks<S>(begin, end, [&](auto w, int64_t c) {
            second_sums<H, decltype(w)>(s, from, pull, along, ch, c, g[G::kV], g[G::kVXhat], g[G::kVGy]);
          });
        for (int64_t c = begin; c < end; c++) {
          by_weight[n * s.c + c] = g[G::kVGy][c];  // kept until the means replace the sums
          g[G::kVGy][c] *= weight[c];
          g[G::kGy][c] = weight[c] * s1[c], g[G::kGyXhat][c] = weight[c] * s2[c];
          g[G::kQ][c] = v_weight[c] * s1[c], g[G::kQXhat][c] = v_weight[c] * s2[c];
        }
        for (int row = 0; row < G::kRows; row++) group_means(g[row], begin, end, size, s.pixels());
        for (int64_t c = begin; c < end; c++) {
          const S r = ch[kRstd][c], k = s.over == kSample ? S(1) : S(0);
          const S a = k * g[G::kV][c], b = k * g[G::kGy][c], cc = k * g[G::kVXhat][c], d = k * g[G::kGyXhat][c];
          const S e = k * g[G::kVGy][c], q = k * g[G::kQ][c], qx = k * g[G::kQXhat][c];
          by_weight[n * s.c + c] = r * (by_weight[n * s.c + c] - a * s1[c] - cc * s2[c]);
          ch[kFree + 0][c] = v_bias[c] - weight[c] * r * a;
          ch[kFree + 1][c] = weight[c] * r;
          ch[kFree + 2][c] = v_weight[c] - weight[c] * r * cc;
          ch[kFree + 3][c] = -r * (q - r * (a * d + b * cc));
          ch[kFree + 4][c] = -r * r * d;
          ch[kFree + 5][c] = r * (v_weight[c] - r * weight[c] * cc);
          ch[kFree + 6][c] = -r * (qx - 2 * r * cc * d) - r * r * (e - a * b - cc * d);
        }
        blocks<S>(begin, end, [&](auto w, int64_t c) {
          second_pass<H, decltype(w)>(s, from, pull, along, by_grad + n * pooled, by_x + n * sample, ch, c);
        });
      }
    }
  }
}

// The norm's weight and bias are per channel here, the activation piecewise linear.
template <class S, class F>
void with(const int64_t* how, F body) {
  with_pooling<false, Leaky<S>>(how, body);
}

}  // namespace

#define EXPORT_SECOND(SUFFIX, T, S)                                                                                  \
  extern "C" void second_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const T* grad,            \
                                  const T* v, const S* weight, const S* bias, const S* mean, const S* rstd,          \
                                  const S* sum1, const S* sum2, const S* v_weight, const S* v_bias, T* by_grad,      \
                                  T* by_x, S* by_weight) {                                                           \
    const Shape<S> s = shape_of(sizes, numbers, weight, bias);                                                       \
    with<S>(sizes + 5, [&](auto how) {                                                                               \
      second<decltype(how)>(s, x, grad, v, weight, bias, mean, rstd, sum1, sum2, v_weight, v_bias, by_grad, by_x,    \
                            by_weight, int(sizes[4]));                                                               \
    });                                                                                                              \
  }
#define EXPORT(SUFFIX, T, S)        \
  EXPORT_FIRST(with, SUFFIX, T, S)  \
  EXPORT_SECOND(SUFFIX, T, S)       \
  EXPORT_BLOCK(with, SUFFIX, T, S)

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)

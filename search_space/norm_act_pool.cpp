// Norm, (leaky) ReLU and 2x2 pooling of channels-last maps in one operation, with first and second derivative: samples
// [n, h, w, c] one after another (norm_act_pool.h). And the whole first block of a network (image_block.h), whose norm,
// activation and pooling are the same.
#include "norm_act_pool.h"

#include "image_block.h"

namespace {

template <int P, class T, class S>
void forward(const Shape<S>& s, const T* x, const S* weight, const S* bias, T* out, S* mean, S* rstd, int threads) {
  const int64_t sample = s.h * s.w * s.c, pooled = pooled_size(s, P);
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kFree, s.c);
    std::memcpy(ch[kWeight], weight, s.c * sizeof(S)), std::memcpy(ch[kBias], bias, s.c * sizeof(S));
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++)
      forward_sample<P>(s, x + n * sample, out + n * pooled, ch, mean + n * s.c, rstd + n * s.c);
  }
}

template <int P, class T, class S>
void backward(const Shape<S>& s, const T* x, const T* grad, const S* weight, const S* bias, const S* mean,
              const S* rstd, T* by_x, S* sum1, S* sum2, int threads) {
  const int64_t sample = s.h * s.w * s.c, pooled = pooled_size(s, P);
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kFree + 3, s.c);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) {
      recall(ch, mean + n * s.c, rstd + n * s.c, weight, bias);
      backward_sample<P>(s, x + n * sample, grad + n * pooled, by_x + n * sample, ch, sum1 + n * s.c, sum2 + n * s.c);
    }
  }
}

template <class S>
struct Group {  // means over a group's entries, per channel
  enum { kV, kVXhat, kVGy, kGy, kGyXhat, kQ, kQXhat, kRows };
};

template <int P, class T, class S>
void second(const Shape<S>& s, const T* x, const T* grad, const T* v, const S* weight, const S* bias, const S* mean,
            const S* rstd, const S* sum1, const S* sum2, const S* v_weight, const S* v_bias, T* by_grad, T* by_x,
            S* by_weight, int threads) {
  typedef Group<S> G;
  const int64_t pixels = s.h * s.w, size = s.groups ? s.c / s.groups : 1, span = span_of(s);
  const int64_t sample = pixels * s.c, pooled = P == kNone ? sample : sample / 4;
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
        if (s.groups)
          blocks<S>(begin, end, [&](auto w, auto u, int64_t c) {
            second_sums<decltype(w), u.value, P>(s, from + c, pull + c, along + c, ch, c, g[G::kV], g[G::kVXhat],
                                                 g[G::kVGy]);
          });
        for (int64_t c = begin; c < end; c++) {
          by_weight[n * s.c + c] = g[G::kVGy][c];  // kept until the means replace the sums
          g[G::kVGy][c] *= weight[c];
          g[G::kGy][c] = weight[c] * s1[c], g[G::kGyXhat][c] = weight[c] * s2[c];
          g[G::kQ][c] = v_weight[c] * s1[c], g[G::kQXhat][c] = v_weight[c] * s2[c];
        }
        for (int row = 0; row < G::kRows; row++) group_means(g[row], begin, end, size, pixels);
        for (int64_t c = begin; c < end; c++) {
          const S r = ch[kRstd][c], k = s.groups ? S(1) : S(0);
          const S a = k * g[G::kV][c], b = k * g[G::kGy][c], cc = k * g[G::kVXhat][c], d = k * g[G::kGyXhat][c];
          const S e = k * g[G::kVGy][c], q = k * g[G::kQ][c], qx = k * g[G::kQXhat][c];
          by_weight[n * s.c + c] = r * (by_weight[n * s.c + c] - a * s1[c] - cc * s2[c]);
          ch[kFree + 0][c] = v_bias[c] - weight[c] * r * a;
          ch[kFree + 1][c] = weight[c] * r;
          ch[kFree + 2][c] = v_weight[c] - weight[c] * r * cc;
          ch[kFree + 3][c] = -r * (q - r * (a * d + b * cc));
          ch[kFree + 4][c] = -r * r * d;
          ch[kFree + 5][c] = k * r * (v_weight[c] - r * weight[c] * cc);
          ch[kFree + 6][c] = -r * (qx - 2 * r * cc * d) - r * r * (e - a * b - cc * d);
        }
        blocks<S>(begin, end, [&](auto w, auto u, int64_t c) {
          second_pass<decltype(w), u.value, P>(s, from + c, pull + c, along + c, by_grad + n * pooled + c,
                                               by_x + n * sample + c, ch, c);
        });
      }
    }
  }
}

}  // namespace

// sizes: n, h, w, c, groups (0: no norm), pool, threads. numbers: slope of the activation below 0, eps.
#define DISPATCH(NAME, T, S, ...)                                                                  \
  const Shape<S> s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], S(numbers[0]), S(numbers[1])}; \
  const int threads = int(sizes[6]);                                                                \
  if (sizes[5] == kNone) NAME<kNone>(s, __VA_ARGS__, threads);                                      \
  if (sizes[5] == kAverage) NAME<kAverage>(s, __VA_ARGS__, threads);                                \
  if (sizes[5] == kMax) NAME<kMax>(s, __VA_ARGS__, threads);

#define EXPORT(SUFFIX, T, S)                                                                                       \
  extern "C" void forward_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const S* weight,       \
                                   const S* bias, T* out, S* mean, S* rstd) {                                      \
    DISPATCH(forward, T, S, x, weight, bias, out, mean, rstd)                                                      \
  }                                                                                                                \
  extern "C" void backward_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const T* grad,        \
                                    const S* weight, const S* bias, const S* mean, const S* rstd, T* by_x,         \
                                    S* sum1, S* sum2) {                                                            \
    DISPATCH(backward, T, S, x, grad, weight, bias, mean, rstd, by_x, sum1, sum2)                                  \
  }                                                                                                                \
  extern "C" void second_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const T* grad,          \
                                  const T* v, const S* weight, const S* bias, const S* mean, const S* rstd,        \
                                  const S* sum1, const S* sum2, const S* v_weight, const S* v_bias, T* by_grad,    \
                                  T* by_x, S* by_weight) {                                                         \
    DISPATCH(second, T, S, x, grad, v, weight, bias, mean, rstd, sum1, sum2, v_weight, v_bias, by_grad, by_x,      \
             by_weight)                                                                                            \
  }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)

// The first block. sizes: those of patches.h, groups (0: no norm), pool. numbers: slope of the activation below 0, eps.
#define DISPATCH_BLOCK(NAME, S, ...)                                                                                 \
  const Images s = Images::of(sizes);                                                                           \
  const Shape<S> shape{s.n, s.height(), s.width(), s.out, sizes[11], S(numbers[0]), S(numbers[1])};            \
  if (sizes[12] == kNone) NAME<kNone>(s, shape, __VA_ARGS__);                                                  \
  if (sizes[12] == kAverage) NAME<kAverage>(s, shape, __VA_ARGS__);                                            \
  if (sizes[12] == kMax) NAME<kMax>(s, shape, __VA_ARGS__);

#define EXPORT_BLOCK(SUFFIX, T, S)                                                                                      \
  extern "C" void image_block_forward_##SUFFIX(const int64_t* sizes, const double* numbers, const S* x, const S* weight,      \
                                   const S* bias, const S* norm_weight, const S* norm_bias, T* out, S* mean,      \
                                   S* rstd) {                                                                     \
    DISPATCH_BLOCK(image_block::forward, S, x, weight, bias, norm_weight, norm_bias, out, mean, rstd)                                \
  }                                                                                                               \
  extern "C" void image_block_backward_##SUFFIX(const int64_t* sizes, const double* numbers, const S* x, const S* weight,     \
                                    const S* bias, const S* norm_weight, const S* norm_bias, const T* grad,       \
                                    const S* mean, const S* rstd, S* by_weight, S* by_bias, S* sum1, S* sum2) {   \
    DISPATCH_BLOCK(image_block::backward, S, x, weight, bias, norm_weight, norm_bias, grad, mean, rstd, by_weight, by_bias, sum1,    \
             sum2)                                                                                                \
  }

EXPORT_BLOCK(float32, float, float)
EXPORT_BLOCK(float64, double, double)
EXPORT_BLOCK(bfloat16, bf16, float)

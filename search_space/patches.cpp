// 3x3 convolutions of maps with few channels (images), and their gradients, as products with the patches of the input.
//
// A patch holds the 9 places of every input channel under an output pixel, and a one for the bias: [9 in + 1] numbers,
// so that a row of output pixels is patches [pixels, 9 in + 1] times the kernels. The weight's and the bias's gradients
// are patches' times the output's gradient; the input's is the output's gradient times kernels', added up where
// patches overlap. Patches of one row of pixels at a time stay in the cache. Sums over images run in groups of a fixed
// number, so threads change nothing.
#include <omp.h>

#include "products.h"

namespace {

constexpr int kGroups = 16;  // of images whose weight gradients are added one after another

struct Sizes {
  int64_t n, in, h, w;                             // of the input
  int64_t by_image, by_channel, by_row, by_pixel;  // its strides
  int64_t out, padding;
  int threads;
  INLINE int64_t height() const { return h + 2 * padding - 2; }
  INLINE int64_t width() const { return w + 2 * padding - 2; }
  INLINE int64_t padded() const { return w + 2 * padding; }
  INLINE int64_t places() const { return 9 * in; }
  INLINE int64_t patch() const { return 9 * in + 1; }
};

thread_local Scratch of_all, of_one;  // what the threads of a call share, what each has

// Patches [pixels, 9 in + 1] of row y of the output; a patch's places go row by row, pixel by pixel, channel by channel.
template <int In, class S>
INLINE void fill_patches(const Sizes& s, const S* x, int64_t image, int64_t y, S* strip, S* to) {
  const int64_t in = In ? In : s.in, line = s.padded() * in, run = 3 * in, patch = 3 * run + 1;
  for (int64_t row = 0; row < 3; row++) {
    const int64_t from = y - s.padding + row;
    S* at = strip + row * line;
    std::fill(at, at + line, S(0));
    if (from < 0 || from >= s.h) continue;
    for (int64_t c = 0; c < in; c++) {
      const S* pixels = x + image * s.by_image + c * s.by_channel + from * s.by_row;
      for (int64_t p = 0; p < s.w; p++) at[(p + s.padding) * in + c] = pixels[p * s.by_pixel];
    }
  }
  for (int64_t p = 0; p < s.width(); p++) {
    S* one = to + p * patch;
    for (int64_t row = 0; row < 3; row++) {
      const S* from = strip + row * line + p * in;
      for (int64_t q = 0; q < run; q++) one[row * run + q] = from[q];
    }
    one[3 * run] = S(1);
  }
}

// The same with the usual numbers of channels known to the compiler.
template <class S>
INLINE void fill(const Sizes& s, const S* x, int64_t image, int64_t y, S* strip, S* to) {
  if (s.in == 3) return fill_patches<3>(s, x, image, y, strip, to);
  if (s.in == 1) return fill_patches<1>(s, x, image, y, strip, to);
  fill_patches<0>(s, x, image, y, strip, to);
}

// Where place q of a patch lies in a kernel [in, 3, 3].
INLINE int64_t in_kernel(const Sizes& s, int64_t q) { return q % s.in * 9 + q / s.in; }

template <class S>
void convolve(const Sizes& s, const S* x, const S* weight, const S* bias, S* out) {
  constexpr int L = Wide<S>::lanes;
  const int64_t patch = s.patch(), pixels = s.width();
  S* kernels = of_all.get<S>(patch * s.out);  // [panel][patch][panel's width]
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    S* panel = kernels + column * patch;
    for (int64_t o = 0; o < vectors * L; o++) {
      for (int64_t q = 0; q < s.places(); q++)
        panel[q * vectors * L + o] = weight[(column + o) * s.places() + in_kernel(s, q)];
      panel[s.places() * vectors * L + o] = bias ? bias[column + o] : S(0);
    }
  });
#pragma omp parallel num_threads(s.threads)
  {
    S* strip = of_one.get<S>(3 * s.padded() * s.in + pixels * patch);
    S* patches = strip + 3 * s.padded() * s.in;
#pragma omp for collapse(2) schedule(static)
    for (int64_t image = 0; image < s.n; image++)
      for (int64_t y = 0; y < s.height(); y++) {
        fill(s, x, image, y, strip, patches);
        S* row = out + (image * s.height() + y) * pixels * s.out;
        panels<S>(0, s.out, [&](int64_t column, int vectors) {
          product<false>(vectors, patches, patch, 1, kernels + column * patch, row + column, s.out, pixels, patch);
        });
      }
  }
}

template <class S>
void weight_gradient(const Sizes& s, const S* x, const S* grad, S* by_weight, S* by_bias) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  const int64_t patch = s.patch(), pixels = s.width(), groups = std::min<int64_t>(s.n, kGroups);
  S* sums = of_all.get<S>(groups * patch * s.out);  // [group][patch][out]
#pragma omp parallel num_threads(s.threads)
  {
    S* strip = of_one.get<S>(3 * s.padded() * s.in + pixels * (patch + s.out));
    S* patches = strip + 3 * s.padded() * s.in;
    S* gradients = patches + pixels * patch;  // [panel][pixel][panel's width]
#pragma omp for schedule(static)
    for (int64_t group = 0; group < groups; group++) {
      S* sum = sums + group * patch * s.out;
      std::fill(sum, sum + patch * s.out, S(0));
      for (int64_t image = s.n * group / groups; image < s.n * (group + 1) / groups; image++)
        for (int64_t y = 0; y < s.height(); y++) {
          fill(s, x, image, y, strip, patches);
          const S* row = grad + (image * s.height() + y) * pixels * s.out;
          panels<S>(0, s.out, [&](int64_t column, int vectors) {
            S* panel = gradients + column * pixels;
            for (int64_t p = 0; p < pixels; p++)
              for (int v = 0; v < vectors; v++)
                store(panel + (p * vectors + v) * L, load<V>(row + p * s.out + column + v * L));
            product<true>(vectors, patches, 1, patch, panel, sum + column, s.out, patch, pixels);
          });
        }
    }
  }
  for (int64_t group = 1; group < groups; group++)
    for (int64_t k = 0; k < patch * s.out; k++) sums[k] += sums[group * patch * s.out + k];
  for (int64_t o = 0; o < s.out; o++) {
    if (by_weight)
      for (int64_t q = 0; q < s.places(); q++) by_weight[o * s.places() + in_kernel(s, q)] = sums[q * s.out + o];
    if (by_bias) by_bias[o] = sums[s.places() * s.out + o];
  }
}

// by_input: [n, in, h, w], contiguous
template <class S>
void input_gradient(const Sizes& s, const S* grad, const S* weight, S* by_input) {
  constexpr int L = Wide<S>::lanes;
  const int64_t places = s.places(), pixels = s.width(), columns = (places + L - 1) / L * L, line = s.padded() * s.in;
  S* kernels = of_all.get<S>(columns * s.out);  // [panel][out][panel's width]
  panels<S>(0, columns, [&](int64_t column, int vectors) {
    for (int64_t o = 0; o < s.out; o++)
      for (int64_t v = 0; v < vectors * L; v++)
        kernels[column * s.out + o * vectors * L + v] =
            column + v < places ? weight[o * places + in_kernel(s, column + v)] : S(0);
  });
#pragma omp parallel num_threads(s.threads)
  {
    const int64_t area = (s.h + 2 * s.padding) * line;
    S* sum = of_one.get<S>(area + pixels * columns);
    S* products = sum + area;  // [pixel][places]
#pragma omp for schedule(static)
    for (int64_t image = 0; image < s.n; image++) {
      std::fill(sum, sum + area, S(0));
      for (int64_t y = 0; y < s.height(); y++) {
        const S* row = grad + (image * s.height() + y) * pixels * s.out;
        panels<S>(0, columns, [&](int64_t column, int vectors) {
          product<false>(vectors, row, s.out, 1, kernels + column * s.out, products + column, columns, pixels, s.out);
        });
        for (int64_t p = 0; p < pixels; p++)
          for (int64_t r = 0; r < 3; r++) {
            S* to = sum + (y + r) * line + p * s.in;
            const S* from = products + p * columns + r * 3 * s.in;
            for (int64_t q = 0; q < 3 * s.in; q++) to[q] += from[q];
          }
      }
      S* to = by_input + image * s.in * s.h * s.w;
      for (int64_t c = 0; c < s.in; c++)
        for (int64_t y = 0; y < s.h; y++)
          for (int64_t p = 0; p < s.w; p++)
            to[(c * s.h + y) * s.w + p] = sum[(y + s.padding) * line + (p + s.padding) * s.in + c];
    }
  }
}

INLINE Sizes sizes_of(const int64_t* z) {
  return {z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], z[8], z[9], int(z[10])};
}

}  // namespace

// sizes: n, in, h, w, strides of x, out, padding, threads. out and grad are channels-last.
#define EXPORT(SUFFIX, S)                                                                                            \
  extern "C" void convolve_##SUFFIX(const int64_t* sizes, const S* x, const S* weight, const S* bias, S* out) {      \
    convolve(sizes_of(sizes), x, weight, bias, out);                                                           \
  }                                                                                                                  \
  extern "C" void weight_gradient_##SUFFIX(const int64_t* sizes, const S* x, const S* grad, S* by_weight,            \
                                           S* by_bias) {                                                             \
    weight_gradient(sizes_of(sizes), x, grad, by_weight, by_bias);                                             \
  }                                                                                                                  \
  extern "C" void input_gradient_##SUFFIX(const int64_t* sizes, const S* grad, const S* weight, S* by_input) {       \
    input_gradient(sizes_of(sizes), grad, weight, by_input);                                                   \
  }

EXPORT(float32, float)
EXPORT(float64, double)

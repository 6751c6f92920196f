// 3x3 convolutions of images and their gradients as products with patches (patches.h): the weight's and the bias's
// gradients are patches' times the output's gradient; the input's is the output's gradient times kernels', added up
// where patches overlap.
#include "patches.h"

namespace {

thread_local Scratch of_all, of_one;  // what the threads of a call share, what each has

template <class S>
void convolve(const Images& s, const S* x, const S* weight, const S* bias, S* out) {
  S* kernels = of_all.get<S>(s.patch() * s.out);
  pack_kernels(s, weight, bias, kernels);
#pragma omp parallel num_threads(s.threads)
  {
    S* strip = of_one.get<S>(s.strip() + s.width() * s.patch());
    S* patches = strip + s.strip();
#pragma omp for collapse(2) schedule(static)
    for (int64_t image = 0; image < s.n; image++)
      for (int64_t y = 0; y < s.height(); y++) {
        fill(s, x, image, y, strip, patches);
        convolve_row(s, patches, kernels, out + (image * s.height() + y) * s.width() * s.out);
      }
  }
}

template <class S>
void weight_gradient(const Images& s, const S* x, const S* grad, S* by_weight, S* by_bias) {
  const int64_t groups = std::min<int64_t>(s.n, kGroups), size = s.patch() * s.out;
  S* sums = of_all.get<S>(groups * size);  // [group][patch][out]
#pragma omp parallel num_threads(s.threads)
  {
    S* strip = of_one.get<S>(s.strip() + s.width() * s.patch());
    S* patches = strip + s.strip();
#pragma omp for schedule(static)
    for (int64_t group = 0; group < groups; group++) {
      S* sum = sums + group * size;
      std::fill(sum, sum + size, S(0));
      const Range images = group_of(s, group, groups);
      for (int64_t image = images.begin; image < images.end; image++)
        for (int64_t y = 0; y < s.height(); y++) {
          fill(s, x, image, y, strip, patches);
          add_weight_gradient(s, patches, grad + (image * s.height() + y) * s.width() * s.out, sum);
        }
    }
  }
  gather_weight_gradient(s, sums, groups, by_weight, by_bias);
}

// by_input: [n, in, h, w], contiguous
template <class S>
void input_gradient(const Images& s, const S* grad, const S* weight, S* by_input) {
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
          product<false>(vectors, row, s.out, 1, kernels + column * s.out, vectors * L,
                         products + column, columns, pixels, s.out);
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

}  // namespace

// sizes: n, in, h, w, strides of x, out, padding, threads. out and grad are channels-last.
#define EXPORT(SUFFIX, S)                                                                                            \
  extern "C" void convolve_##SUFFIX(const int64_t* sizes, const S* x, const S* weight, const S* bias, S* out) {      \
    convolve(images_of(sizes), x, weight, bias, out);                                                           \
  }                                                                                                                  \
  extern "C" void weight_gradient_##SUFFIX(const int64_t* sizes, const S* x, const S* grad, S* by_weight,            \
                                           S* by_bias) {                                                             \
    weight_gradient(images_of(sizes), x, grad, by_weight, by_bias);                                             \
  }                                                                                                                  \
  extern "C" void input_gradient_##SUFFIX(const int64_t* sizes, const S* grad, const S* weight, S* by_input) {       \
    input_gradient(images_of(sizes), grad, weight, by_input);                                                   \
  }

EXPORT(float32, float)
EXPORT(float64, double)

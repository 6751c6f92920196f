// 3x3 convolutions of images and their gradients as products with patches (patches.h): the weight's and the bias's
// gradients are patches' times the output's gradient; the input's is the output's gradient times kernels', added up
// where patches overlap.
#include "patches.h"

namespace {

thread_local Scratch of_all, of_one;  // what the threads of a call share, what each has

template <class S>
void convolve(const Images& s, const S* x, const S* weight, const S* bias, S* out) {
  const Places places(s);
  S* kernels = of_all.get<S>(s.places() * s.out);
  pack_kernels(s, places, weight, kernels);
#pragma omp parallel num_threads(s.threads)
  {
    S* frame = of_one.get<S>(s.frame());
#pragma omp for schedule(static)
    for (int64_t image = 0; image < s.n; image++) {
      fill_frame(s, x, image, frame);
      for (int64_t y = 0; y < s.height(); y++)
        convolve_row(s, places, frame, kernels, bias, y, out + (image * s.height() + y) * s.width() * s.out);
    }
  }
}

template <class S>
void weight_gradient(const Images& s, const S* x, const S* grad, S* by_weight, S* by_bias) {
  const Places places(s);
  const int64_t groups = std::min<int64_t>(s.n, kGroups), size = (s.places() + 1) * s.out;
  S* sums = of_all.get<S>(groups * size);  // [group][9 in + 1][out]
#pragma omp parallel num_threads(s.threads)
  {
    S* frame = of_one.get<S>(s.frame());
#pragma omp for schedule(static)
    for (int64_t group = 0; group < groups; group++) {
      S* sum = sums + group * size;
      std::fill(sum, sum + size, S(0));
      const Range images = group_of(s, group, groups);
      for (int64_t image = images.begin; image < images.end; image++) {
        fill_frame(s, x, image, frame);
        for (int64_t y = 0; y < s.height(); y++)
          add_weight_gradient(s, places, frame, grad + (image * s.height() + y) * s.width() * s.out, y, sum);
      }
    }
  }
  gather_weight_gradient(s, places, sums, groups, by_weight, by_bias);
}

// by_input: [n, in, h, w], contiguous
template <class S>
void input_gradient(const Images& s, const S* grad, const S* weight, S* by_input) {
  constexpr int L = Wide<S>::lanes;
  const Places places(s);
  const int64_t count = s.places(), pixels = s.width(), columns = (count + L - 1) / L * L, run = 3 * s.in;
  S* kernels = of_all.get<S>(columns * s.out);  // [panel][out][panel's width]
  panels<S>(0, columns, [&](int64_t column, int vectors) {
    const int64_t width = vectors * L;
    for (int64_t o = 0; o < s.out; o++)
      for (int64_t v = 0; v < width; v++)
        kernels[column * s.out + o * width + v] =
            column + v < count ? weight[o * count + places.in_kernel[column + v]] : S(0);
  });
#pragma omp parallel num_threads(s.threads)
  {
    S* frame = of_one.get<S>(s.frame() + pixels * columns);
    S* products = frame + s.frame();  // [pixel][place]
#pragma omp for schedule(static)
    for (int64_t image = 0; image < s.n; image++) {
      std::fill(frame, frame + s.frame(), S(0));
      for (int64_t y = 0; y < s.height(); y++) {
        const Linear<S> row{grad + (image * s.height() + y) * pixels * s.out, s.out, 1};
        panels<S>(0, columns, [&](int64_t column, int vectors) {
          const Right<S> panel{kernels + column * s.out, vectors * L};
          product<kZero>(vectors, row, panel, Result<S>{products + column, columns}, pixels, s.out);
        });
        for (int64_t p = 0; p < pixels; p++)
          for (int64_t r = 0; r < 3; r++) {
            S* to = frame + (y + r) * s.line() + p * s.in;
            const S* from = products + p * columns + r * run;
            for (int64_t q = 0; q < run; q++) to[q] += from[q];
          }
      }
      S* to = by_input + image * s.in * s.h * s.w;
      for (int64_t c = 0; c < s.in; c++)
        for (int64_t y = 0; y < s.h; y++)
          for (int64_t p = 0; p < s.w; p++)
            to[(c * s.h + y) * s.w + p] = frame[(y + s.padding) * s.line() + (p + s.padding) * s.in + c];
    }
  }
}

}  // namespace

// sizes: as in patches.h. out and grad are channels-last.
#define EXPORT(SUFFIX, S)                                                                                            \
  extern "C" void convolve_##SUFFIX(const int64_t* sizes, const S* x, const S* weight, const S* bias, S* out) {      \
    convolve(Images::of(sizes), x, weight, bias, out);                                                           \
  }                                                                                                                  \
  extern "C" void weight_gradient_##SUFFIX(const int64_t* sizes, const S* x, const S* grad, S* by_weight,            \
                                           S* by_bias) {                                                             \
    weight_gradient(Images::of(sizes), x, grad, by_weight, by_bias);                                             \
  }                                                                                                                  \
  extern "C" void input_gradient_##SUFFIX(const int64_t* sizes, const S* grad, const S* weight, S* by_input) {       \
    input_gradient(Images::of(sizes), grad, weight, by_input);                                                   \
  }

EXPORT(float32, float)
EXPORT(float64, double)

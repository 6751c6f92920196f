// Activations and the 2x2 pooling after them: the pooled value of a square's places, and its derivative by each place.
#pragma once
#include <limits>

#include "vectors.h"

namespace {

enum Pool { kNone = 0, kAverage = 1, kMax = 2 };

template <int P>
constexpr int kPlaces = P == kNone ? 1 : 4;

template <int P, class S, class V>
INLINE V pool(const V* value) {
  if (P == kAverage) return (value[0] + value[1] + (value[2] + value[3])) * S(0.25);
  V best = value[0];
  for (int k = 1; k < kPlaces<P>; k++) best = value[k] > best ? value[k] : best;
  return best;
}

// Shares of the pooled value's gradient that the places get, by their values: of the largest, the first row by row.
template <int P, class S, class V>
INLINE void shares(const V* value, V* share) {
  const V best = pool<P, S>(value);
  V left = spread<V>(S(1));
  for (int k = 0; k < kPlaces<P>; k++) {
    share[k] = P == kMax ? (value[k] == best ? left : V{}) : spread<V>(P == kAverage ? S(0.25) : S(1));
    left -= share[k];
  }
}

// y, below 0 times a slope: ReLU and leaky ReLU.
template <class S>
struct Leaky {
  static constexpr bool curved = false;
  S slope;
  explicit Leaky(double number) : slope(S(number)) {}

  template <int P, class V>
  INLINE V pooled(const V* y) const {
    V value[4];
    for (int k = 0; k < kPlaces<P>; k++) value[k] = y[k] > V{} ? y[k] : y[k] * slope;
    return pool<P, S>(value);
  }
  template <int P, class V>
  INLINE void derivatives(const V* y, V* d) const {
    shares<P, S>(y, d);  // the largest value is that of the largest y
    for (int k = 0; k < kPlaces<P>; k++) d[k] = y[k] > V{} ? d[k] : d[k] * slope;
  }
  template <int P, class V>
  INLINE void derivatives(const V* y, V* d, V*) const {
    derivatives<P>(y, d);
  }
};

template <class V>
struct IntegersOf {
  typedef decltype(V{} < V{}) type;
};
template <>
struct IntegersOf<float> {
  typedef int32_t type;
};
template <>
struct IntegersOf<double> {
  typedef int64_t type;
};

constexpr double inverse_factorial(int k) { return k ? inverse_factorial(k - 1) / k : 1.0; }

// exp(x) to the last places: 2^n times Taylor's sum of what is left, at most ln(2) / 2. Beyond what 2^n can be it is
// infinite above, and the least such number below.
template <class S, class V>
INLINE V exponential(V x) {
  typedef typename IntegersOf<V>::type Integers;
  constexpr bool narrow = sizeof(S) == 4;
  constexpr int digits = narrow ? 23 : 52, terms = narrow ? 7 : 13;
  const S end = narrow ? S(87) : S(708), rounding = S(narrow ? 0x1.8p23 : 0x1.8p52);  // adding it rounds to a whole n
  const V high = spread<V>(end), low = spread<V>(-end);
  const V given = x, infinite = spread<V>(std::numeric_limits<S>::infinity());
  x = x < low ? low : x > high ? high : x;
  const V shifted = x * S(1.4426950408889634) + rounding, n = shifted - rounding;
  // ln 2 in two parts, the first of which times n is exact
  x -= n * S(narrow ? 0.693359375 : 6.93147180369123816490e-01);
  x -= n * S(narrow ? -2.12194440e-4 : 1.90821492927058770002e-10);
  V sum = spread<V>(S(inverse_factorial(terms)));
  for (int k = terms - 1; k >= 0; k--) sum = sum * x + S(inverse_factorial(k));
  Integers power;
  std::memcpy(&power, &shifted, sizeof power);
  power = (power << digits) + (Integers{} + (typename IntegersOf<S>::type(narrow ? 127 : 1023) << digits));
  V scale;
  std::memcpy(&scale, &power, sizeof scale);
  return given > high ? infinite : sum * scale;
}

// 1 / (1 + exp(-y)), or y times it: sigmoid and swish.
template <class S>
struct Smooth {
  static constexpr bool curved = true;
  bool gated;
  explicit Smooth(double number) : gated(number != 0) {}

  template <class V>
  static INLINE V sigmoid(V y) {
    return S(1) / (S(1) + exponential<S>(-y));
  }
  template <int P, class V>
  INLINE V pooled(const V* y) const {
    if (P == kMax && !gated) return sigmoid(pool<P, S>(y));  // it rises, so that one is enough
    V value[4];
    for (int k = 0; k < kPlaces<P>; k++) value[k] = gated ? y[k] * sigmoid(y[k]) : sigmoid(y[k]);
    return pool<P, S>(value);
  }
  // The derivative of the pooled value by each place, and where it is asked for the second one (of one place by itself:
  // the shares of the places stay).
  template <int P, class V>
  INLINE void derivatives(const V* y, V* d, V* curve = nullptr) const {
    if (P == kMax && !gated) {
      const V s = sigmoid(pool<P, S>(y)), slope = s * (S(1) - s), bend = slope * (S(1) - s - s);
      shares<P, S>(y, d);
      for (int k = 0; k < 4; k++) {
        if (curve) curve[k] = d[k] * bend;
        d[k] *= slope;
      }
      return;
    }
    V value[4], slope[4], bend[4];
    for (int k = 0; k < kPlaces<P>; k++) {
      const V s = sigmoid(y[k]), rest = s * (S(1) - s), turn = rest * (S(1) - s - s);
      value[k] = gated ? y[k] * s : s;
      slope[k] = gated ? s + y[k] * rest : rest;
      bend[k] = gated ? rest + rest + y[k] * turn : turn;
    }
    shares<P, S>(value, d);
    for (int k = 0; k < kPlaces<P>; k++) {
      if (curve) curve[k] = d[k] * bend[k];
      d[k] *= slope[k];
    }
  }
};

// One way to do it: pooling, whether the norm has a weight and a bias per element (else per channel), the activation.
template <int P_, bool E_, class A_>
struct How {
  static constexpr int P = P_;
  static constexpr bool E = E_;
  typedef A_ Act;
};

}  // namespace

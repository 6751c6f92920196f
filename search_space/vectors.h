// Vectors as wide as the machine's, of what is computed in, loaded from and stored as what is kept in memory.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int kBytes = VECTOR_BYTES;

struct bf16 {
  uint16_t bits;
};

template <class S>
struct Wide {
  static constexpr int lanes = kBytes / sizeof(S);
  typedef S type __attribute__((vector_size(kBytes)));
};

// A vector of V lanes (or one number) in memory, in the type it is computed in.
template <class V, class T>
INLINE V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}
template <class V, class T>
INLINE void store(T* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));
typedef Wide<float>::type Floats;

template <>
INLINE Floats load<Floats, bf16>(const bf16* from) {
  Halves half;
  std::memcpy(&half, from, sizeof(half));
  return (Floats)(__builtin_convertvector(half, Words) << 16);
}
template <>
INLINE void store<Floats, bf16>(bf16* to, Floats value) {
  Words word = (Words)value;
  Words rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
  rounded = (Words)(value == value) ? rounded : (Words{} + 0x7fc0);
  Halves half = __builtin_convertvector(rounded, Halves);
  std::memcpy(to, &half, sizeof(half));
}
template <>
INLINE float load<float, bf16>(const bf16* from) {
  uint32_t word = uint32_t(from->bits) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}
template <>
INLINE void store<float, bf16>(bf16* to, float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  to->bits = value == value ? uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16) : uint16_t(0x7fc0);
}

template <class V, class S>
INLINE V spread(S value) {
  return V{} + value;
}

}  // namespace

// The vectors of an instruction set with W lanes of float32: float32, int32, uint8 (a quarter as long) and float64;
// and float32 (half as long) for what becomes float64.
typedef float F __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef int16_t S __attribute__((vector_size(4 * W)));
typedef uint8_t U __attribute__((vector_size(W)));
typedef double D __attribute__((vector_size(4 * W)));
typedef float H __attribute__((vector_size(2 * W)));

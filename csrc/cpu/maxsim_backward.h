// Gradients of MaxSim, from the winners that the forward pass found.
#pragma once

#include "cpu/maxsim.h"

namespace pyengine {

// P pairs of a set of `choosers` and a set of `chosen`: each token i of pair p's choosers took the chosen token
// winners[p][i] (-1: none), and the loss changes by factors[p] * weights[i] with their product. Sets are float32.
struct Choices {
  int64_t n;
  const int64_t* choosers;  // [P]
  const int64_t* chosen;    // [P]
  const int32_t* winners;
  const int64_t* winners_at;  // [P + 1] where each pair's winners begin: as many as it has choosers
  const float* factors;     // [P]
  const float* weights;     // optional, one for each token of all choosers
};

// Adds to the gradients [T, dim] of all tokens of both sides, null where one is not wanted. Whatever the number of
// threads, each row is summed in the order of the pairs.
void maxsim_backward(const Tokens& choosers, const Tokens& chosen, const Choices& choices, float* chooser_gradient,
                     float* chosen_gradient, int threads, const Interrupt& interrupt);

}  // namespace pyengine

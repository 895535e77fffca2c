#include "cpu/maxsim_backward.h"

#include <vector>

#include "cpu/dispatch.h"

namespace pyengine {
namespace {

// The pairs of each set, in their order: those of set s are order[starts[s]] to order[starts[s + 1]].
struct Groups {
  std::vector<int64_t> starts, order;

  Groups(const int64_t* sets, int64_t n_pairs, int64_t n_sets) : starts(n_sets + 1), order(n_pairs) {
    for (int64_t p = 0; p < n_pairs; ++p) ++starts[sets[p] + 1];
    for (int64_t s = 0; s < n_sets; ++s) starts[s + 1] += starts[s];
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t p = 0; p < n_pairs; ++p) order[next[sets[p]]++] = p;
  }
};

// The tokens of one set as rows, and those of a gradient beside it.
struct Set {
  const Tokens& tokens;
  int64_t first;

  Set(const Tokens& all, int64_t set) : tokens(all), first(all.offsets[set]) {}
  const float* row(int64_t i) const { return reinterpret_cast<const float*>(tokens.rows.at(first + i)); }
  float* of(float* gradient, int64_t i) const { return gradient + (first + i) * tokens.dim; }
};

}  // namespace

void maxsim_backward(const Tokens& choosers, const Tokens& chosen, const Choices& choices, float* chooser_gradient,
                     float* chosen_gradient, int threads, const Interrupt& interrupt) {
  const KernelTable& table = kernels();

  // add(token of the choosers, token of the chosen, factor, choosers' set, chosen set) for each choice of a pair
  auto each = [&](int64_t p, auto&& add) {
    const Set from(choosers, choices.choosers[p]), to(chosen, choices.chosen[p]);
    for (int64_t i = 0; i < choices.winners_at[p + 1] - choices.winners_at[p]; ++i) {
      const int32_t winner = choices.winners[choices.winners_at[p] + i];
      const float factor = choices.factors[p] * (choices.weights ? choices.weights[from.first + i] : 1.0f);
      if (winner >= 0) add(from, i, to, winner, factor);
    }
  };
  // and for all pairs, those of one of `sets` after the other on one thread
  auto each_of = [&](const int64_t* sets, int64_t n_sets, auto&& add) {
    const Groups groups(sets, choices.n, n_sets);
    parallel_for(n_sets, threads, interrupt, [&](int64_t set, int) {
      for (int64_t at = groups.starts[set]; at < groups.starts[set + 1]; ++at) each(groups.order[at], add);
    });
  };
  const int dim = choosers.dim;
  if (chooser_gradient)
    each_of(choices.choosers, choosers.n, [&](const Set& from, int64_t i, const Set& to, int64_t j, float factor) {
      table.add_scaled(to.row(j), factor, dim, from.of(chooser_gradient, i));
    });
  if (chosen_gradient)
    each_of(choices.chosen, chosen.n, [&](const Set& from, int64_t i, const Set& to, int64_t j, float factor) {
      table.add_scaled(from.row(i), factor, dim, to.of(chosen_gradient, j));
    });
}

}  // namespace pyengine

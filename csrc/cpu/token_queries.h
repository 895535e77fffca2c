// A block of late-interaction queries prepared for scanning: their tokens as panels, and the terms of their bounds.
//
// For query tokens q_i ~ |q_i| s_i c_i, off by e_i |q_i|, and document tokens d_j ~ w_j a_j c_j, off by w_j r_j (c:
// int8 codes), the maximum over j is off by at most |q_i| (e_i (W + R) + R), W and R being the largest w_j and w_j r_j.
// A score sums these over i.
#pragma once

#include <vector>

#include "cpu/aligned.h"
#include "cpu/maxsim_scan.h"
#include "cpu/query_block.h"

namespace pyengine {

// A document's part in its bound: the largest weight and weighted residual of its tokens, and its bias.
struct TokenTerms {
  double weight, residual, offset, offset_error;
};

class TokenQueries {
 public:
  // Queries [first, first + count). `tokens` are the documents' tokens as a corpus, for cosine or dot.
  TokenQueries(const TokenSearch& search, const Corpus& tokens, int64_t first, int64_t count, int depth,
               double norm_unit, double offset_unit, double deviations, const KernelTable& table, int threads,
               const Interrupt& interrupt);

  int64_t count() const { return static_cast<int64_t>(terms_.size()); }
  int64_t lanes() const { return tokens_.padded(); }  // of a row of maxima
  bool empty(int64_t query) const { return offsets_[query] == offsets_[query + 1]; }
  const std::vector<Scaling>& scalings() const { return scalings_; }
  const std::vector<double>& cautions() const { return cautions_; }

  // What the centroids of residuals [C, D] add to the products of `maxima`, where tiles are coded without: [C, lanes].
  // Weights are in norm_unit.
  AlignedVector<float> products(const Rows& rows, double norm_unit) const;

  // KernelTable::token_maxima for all of the block.
  void maxima(const TokenTile& docs, float* out) const;
  // A document's bounds by its maxima, which are not read for a query without tokens.
  PreparedQueries::Bounds bounds(int64_t query, const float* maxima, const TokenTerms& doc) const;

 private:
  struct Terms {
    double error, spread;  // E (W + R) + F R in all: error is E, spread E + F
  };

  void set_terms(int64_t query, const TokenSearch& search, int64_t first_token, double norm_unit, double offset_unit,
                 double deviations);

  const KernelTable& table_;
  const float* rows_;  // of the queries [tokens, dim]
  int dim_, depth_;
  double relative_;
  std::vector<int64_t> offsets_;  // [count + 1] in the block
  PreparedQueries tokens_;
  AlignedVector<float> factors_;  // [lanes] what a maximum counts in units of s
  std::vector<Terms> terms_;
  std::vector<Scaling> scalings_;
  std::vector<double> cautions_;
};

}  // namespace pyengine

// Tiles of documents: codes (stored, unpacked from bit planes, or quantised here from floats) with the terms of their bounds.
#pragma once

#include <vector>

#include "cpu/aligned.h"
#include "cpu/dense.h"
#include "cpu/kernels.h"
#include "cpu/query_block.h"

namespace pyengine {

// Fills tiles of `capacity` documents at most. One per thread; a tile is valid until the next is made.
class DocTiles {
 public:
  DocTiles(const Corpus& corpus, int capacity, int depth, double norm_unit, double offset_unit, const KernelTable& table);

  // Rows first, first + step, first + 2 step, ... Throws NonFiniteRow where a row to quantise is not finite.
  const DocTile& make(int64_t first, int64_t step, int count);

  // The terms of a document in the tile; its offset here is without the margin that the tile's own carries.
  DocTerms terms(int doc) const {
    const DocTerms terms{tile_.scale[doc], weight_[doc], tile_.residual[doc], 0, 0};
    if (!tile_.offset) return terms;
    return {terms.scale, terms.weight, terms.residual, exact_offset_[doc], offset_error_[doc]};
  }

  // Scales for weights and offsets of this corpus: a norm and an offset that are about the largest.
  static double norm_unit(const Corpus& corpus, const KernelTable& table);
  static double offset_unit(const Corpus& corpus, double norm_unit);

 private:
  void stored_codes(int64_t first, int64_t step, int count);
  void unpack(int64_t first, int64_t step, int count);
  void quantize(int64_t first, int64_t step, int count);
  void weigh(int64_t first, int64_t step, int count);
  void set_weight(int doc, double weight);
  void set_offset(int doc, double norm_term, double bias);

  const Corpus& corpus_;
  const KernelTable& table_;
  int depth_;
  double norm_unit_, offset_unit_, relative_;
  bool weighted_;  // whether weights differ from 1
  RowReader reader_;
  DocTile tile_{};
  AlignedVector<uint8_t> codes_;
  AlignedVector<float> scale_, weight_, residual_, offset_;
  std::vector<double> norm_, exact_offset_, offset_error_;
};

}  // namespace pyengine

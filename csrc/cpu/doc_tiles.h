// Tiles of documents: codes (stored, unpacked from bit planes, or quantised here from floats) with the terms of their
// bounds.
#pragma once

#include <vector>

#include "cpu/aligned.h"
#include "cpu/dense.h"
#include "cpu/kernels.h"
#include "cpu/query_block.h"

namespace pyengine {

// Rows first, first + step, first + 2 step, ... of the corpus, or of a list of its rows.
struct RowSequence {
  int64_t first, step;
  const int32_t* list;

  int64_t operator[](int64_t i) const { return list ? list[first + i * step] : first + i * step; }
};

// Fills tiles of `capacity` documents at most. One per thread; a tile is valid until the next is made.
class DocTiles {
 public:
  DocTiles(const Corpus& corpus, int capacity, int depth, double norm_unit, double offset_unit,
           const KernelTable& table);

  // The first `count` of these rows. Throws NonFiniteRow where one to quantise is not finite. Bit planes are unpacked,
  // or left as rows of bits where the scan takes those.
  const DocTile& make(const RowSequence& rows, int count, bool unpacked = true);

  // A document's codes, as bytes.
  const uint8_t* codes(int doc);

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
  void stored_codes(const RowSequence& rows, int count, bool unpacked);
  void gather(const RowSequence& rows, int count);
  void unpack(const uint8_t* planes, uint8_t* codes) const;
  void quantize(const RowSequence& rows, int count);
  void code_residuals(const RowSequence& rows, int count);
  void weigh(const RowSequence& rows, int count);
  bool weigh_plainly(const double* norms, int count);
  void set_weight(int doc, double weight);
  void set_offset(int doc, double norm_term, double bias);

  const Corpus& corpus_;
  const KernelTable& table_;
  int depth_;
  double norm_unit_, offset_unit_, relative_;
  bool weighted_;  // whether weights differ from 1
  bool packed_ = false;  // whether the tile is of bits
  RowReader reader_;
  DocTile tile_{};
  AlignedVector<uint8_t> codes_, row_codes_;
  AlignedVector<float> scale_, weight_, residual_, offset_;
  std::vector<double> norm_, exact_offset_, offset_error_;
};

}  // namespace pyengine

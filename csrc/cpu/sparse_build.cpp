// Inverting rows: one pass counts and finds the range of each term's weights, one places them.
#include "cpu/sparse_build.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/aligned.h"

namespace pyengine {
namespace {

constexpr int LEVELS = 255;         // of weights that are never negative: 1 .. 255
constexpr int SIGNED_LEVELS = 127;  // of others, around 128
constexpr int SIGNED_ZERO = 128;

// What is known of a term while its postings are placed.
struct Term {
  int32_t count = 0;
  float least = 0, largest = 0;  // of its weights and 0
};

struct Coder {
  float inverse, scale, residual;
  int32_t zero, least;  // the smallest level of a weight
};

float round_up(double x) { return std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()); }

Coder coder_of(const Term& term) {
  const bool negative = term.least < 0;
  const double largest = std::max(static_cast<double>(term.largest), -static_cast<double>(term.least));
  Coder coder;
  coder.scale = std::max(static_cast<float>(largest / (negative ? SIGNED_LEVELS : LEVELS)), std::numeric_limits<float>::denorm_min());
  coder.inverse = static_cast<float>(std::min(1 / static_cast<double>(coder.scale), static_cast<double>(std::numeric_limits<float>::max())));
  coder.residual = 0;
  coder.zero = negative ? SIGNED_ZERO : 0;
  coder.least = 1;
  return coder;
}

class Builder {
 public:
  Builder(const TermRows& rows, int64_t first, int64_t last, const Interrupt& interrupt)
      : rows_(rows), first_(first), last_(last), interrupt_(interrupt), slots_(rows.n_terms, -1) {}

  PostingArrays build(const int32_t* only, int64_t n_only) {
    count(only, n_only);
    lay_out();
    with_weights(rows_, [&](const auto& weight) { place(weight); });
    for (const Coder& coder : coders_) out_.residual.push_back(round_up(coder.residual));
    return std::move(out_);
  }

 private:
  static constexpr int32_t ASKED = -2;

  int64_t windows() const { return (last_ - first_ + WINDOW - 1) / WINDOW; }

  // body(row, at, term) for every entry, window by window; before_window(w) ahead of each.
  template <class Before, class Body>
  void for_entries(const Before& before_window, const Body& body) {
    for (int64_t w = 0; w < windows(); ++w) {
      interrupt_();
      before_window(w);
      const int64_t end = std::min(last_, first_ + (w + 1) * WINDOW);
      for (int64_t row = first_ + w * WINDOW; row < end; ++row)
        for (int64_t at = rows_.offsets[row]; at < rows_.offsets[row + 1]; ++at) body(row, at, rows_.term(at));
    }
  }

  // The terms that occur, numbered by rising term, with their counts and ranges.
  void count(const int32_t* only, int64_t n_only) {
    std::vector<Term> found(rows_.n_terms);
    for (int64_t i = 0; i < n_only; ++i)
      if (only[i] >= 0 && only[i] < rows_.n_terms) slots_[only[i]] = ASKED;
    const int32_t wanted = only ? ASKED : -1;
    with_weights(rows_, [&](const auto& weight) {
      for_entries([](int64_t) {}, [&](int64_t row, int64_t at, int64_t term) {
        if (slots_[term] != wanted) return;
        Term& own = found[term];
        const float value = weight(at, row);
        ++own.count, own.least = std::min(own.least, value), own.largest = std::max(own.largest, value);
      });
    });
    for (int64_t term = 0; term < rows_.n_terms; ++term) {
      const bool occurs = found[term].count > 0;
      slots_[term] = occurs ? static_cast<int32_t>(out_.terms.size()) : -1;
      if (!occurs) continue;
      out_.terms.push_back(static_cast<int32_t>(term)), out_.counts.push_back(found[term].count);
      coders_.push_back(coder_of(found[term]));
    }
  }

  // Where each term's postings go.
  void lay_out() {
    const int64_t n = last_ - first_;
    int64_t rare = 0, columns = 0;
    for (size_t t = 0; t < out_.terms.size(); ++t) {
      const int64_t n_docs = out_.counts[t];
      const Coder& coder = coders_[t];
      out_.scale.push_back(coder.scale), out_.zero.push_back(static_cast<uint8_t>(coder.zero));
      const PostingKind kind = n_docs * DENSE_SHARE >= n ? PostingKind::column
                               : n_docs >= LONG_LIST * windows() ? PostingKind::list : PostingKind::rare;
      out_.kinds.push_back(static_cast<uint8_t>(kind));
      if (kind == PostingKind::column) {
        out_.place.push_back(columns++);
      } else if (kind == PostingKind::list) {
        out_.place.push_back(static_cast<int64_t>(out_.lists.size()) - 1);
        out_.lists.push_back(out_.lists.back() + n_docs);
      } else {
        out_.place.push_back(rare), rare += n_docs;
      }
    }
    out_.rare.resize(rare);
    out_.list_docs.resize(out_.lists.back()), out_.list_levels.resize(out_.lists.back());
    out_.starts.resize((out_.lists.size() - 1) * (windows() + 1));
    out_.columns.reserve(columns * windows() * WINDOW);
    for (size_t t = 0; t < out_.terms.size(); ++t)
      if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::column))
        out_.columns.insert(out_.columns.end(), windows() * WINDOW, out_.zero[t]);
  }

  void note_starts(int64_t window) {
    for (size_t t = 0; t < out_.terms.size(); ++t)
      if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::list))
        out_.starts[out_.place[t] * (windows() + 1) + window] = static_cast<uint32_t>(next_[t] - out_.lists[out_.place[t]]);
  }

  template <class Weight>
  void place(const Weight& weight) {
    next_ = out_.place;
    for (size_t t = 0; t < next_.size(); ++t) {
      if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::list)) next_[t] = out_.lists[out_.place[t]];
      if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::column)) next_[t] = out_.place[t] * windows() * WINDOW;
    }
    int64_t window = 0;
    for_entries([&](int64_t w) { note_starts(window = w); }, [&](int64_t row, int64_t at, int64_t term) {
      const int32_t t = slots_[term];
      if (t < 0) return;
      const uint8_t level = code(coders_[t], weight(at, row));
      const int64_t doc = row - first_;
      const PostingKind kind = static_cast<PostingKind>(out_.kinds[t]);
      if (kind == PostingKind::column) {
        out_.columns[next_[t] + doc] = level;
      } else if (kind == PostingKind::list) {
        out_.list_docs[next_[t]] = static_cast<uint16_t>(doc - window * WINDOW);
        out_.list_levels[next_[t]++] = level;
      } else {
        out_.rare[next_[t]++] = static_cast<uint32_t>(doc << 8 | level);
      }
    });
    note_starts(windows());
  }

  static uint8_t code(Coder& coder, float value) {
    const float scaled = value * coder.inverse;
    const int32_t level = coder.zero + static_cast<int32_t>(std::lrint(std::min(std::max(scaled, -255.0f), 255.0f)));
    const int32_t coded = std::min(std::max(level, coder.least), LEVELS);
    // Exact in double, but for one rounding.
    const double off = std::fabs(static_cast<double>(value) - static_cast<double>(coder.scale) * (coded - coder.zero));
    coder.residual = std::max(coder.residual, round_up(off * (1 + 0x1p-50)));
    return static_cast<uint8_t>(coded);
  }

  const TermRows& rows_;
  int64_t first_, last_;
  const Interrupt& interrupt_;
  std::vector<int32_t> slots_;  // [n_terms] a term's number, -1 where it is not wanted
  std::vector<Coder> coders_;
  std::vector<int64_t> next_;  // where a term's next posting goes
  PostingArrays out_;
};

}  // namespace

PostingArrays build_postings(const TermRows& rows, int64_t first, int64_t last, const int32_t* only, int64_t n_only,
                             const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  return Builder(rows, first, last, interrupt).build(only, n_only);
}

}  // namespace pyengine

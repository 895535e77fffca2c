// Inverting rows: one pass counts and finds the range of each term's weights, one places them.
#include "cpu/sparse_build.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/paged_table.h"

namespace pyengine {
namespace {

constexpr int LEVELS = 255;         // of weights that are never negative: 1 .. 255
constexpr int SIGNED_LEVELS = 127;  // of others, around SIGNED_ZERO
constexpr int LEAST_LEVEL = 1;      // of a weight: 0 may stand for none
// So many entries ahead, the record of an entry's term is fetched; and half as many, the place of its posting.
constexpr int64_t SOON = 16;
constexpr int64_t SAMPLE = 4096;        // rows from which caps are taken
constexpr size_t CAPPED_PERCENT = 99;   // of a column's weights that its cap leaves as they are
constexpr float CAP_SHARE = 0.75f;      // of the largest weight: a cap above it gains little

// What is known of a term while its postings are placed.
struct Term {
  int32_t term = 0, count = 0;
  float least = 0, largest = 0;  // of its weights and 0
  bool whole = true;             // whether they are whole numbers, as counts and impacts of 8 bits are
};

// Of those that are not too large for levels.
bool is_whole(float weight) {
  const float near = std::min(std::max(weight, -256.0f), 256.0f);
  return near == static_cast<float>(static_cast<int32_t>(near));
}

float round_up(double x) { return std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()); }

struct Coder {
  double inverse;  // of the scale, which may be denormal
  double worst;    // how far a level has been from its weight; negative while there is none
  float scale;
  int32_t zero;

  // The level of a weight.
  uint8_t code(double value) {
    const int32_t level = zero + static_cast<int32_t>(std::lrint(std::min(std::max(value * inverse, -255.0), 255.0)));
    const int32_t coded = std::min(std::max(level, LEAST_LEVEL), LEVELS);
    // Exact in double, but for one rounding.
    worst = std::max(worst, std::fabs(value - static_cast<double>(scale) * (coded - zero)) * (1 + 0x1p-50));
    return static_cast<uint8_t>(coded);
  }

  // A bound of that, with a margin for what adds to it: 0 where levels are exact.
  float residual() const { return worst > 0 ? round_up(round_up(worst)) : 0; }
};

Coder coder_of(const Term& term) {
  const bool negative = term.least < 0;
  const double largest = std::max(static_cast<double>(term.largest), -static_cast<double>(term.least));
  const int levels = negative ? SIGNED_LEVELS : LEVELS;
  const double nearest = largest / levels, exact = std::exp2(std::ceil(std::log2(nearest)));  // of whole weights
  Coder coder;
  coder.scale = std::max(static_cast<float>(term.whole && largest <= levels ? exact : nearest),
                         std::numeric_limits<float>::denorm_min());
  coder.inverse = 1 / static_cast<double>(coder.scale);
  coder.worst = -1;
  coder.zero = negative ? SIGNED_ZERO : 0;
  return coder;
}

// Of a column whose largest weights are few: it holds what is below the cap; what is above is postings of their own.
struct Crest {
  size_t term;
  float cap;
  Coder coder;
  std::vector<uint64_t> postings;
};

// Where a term's next posting goes: to a column, the level of each document in its place; to a list, one after another.
struct alignas(64) Place {
  Coder coder;
  float cap = std::numeric_limits<float>::infinity();
  int32_t crest = -1;  // number of the crest that has what is above the cap
  int64_t step = 1;    // 0 for columns
  uint8_t* levels = nullptr;
  uint16_t* docs = nullptr;
  uint64_t* rare = nullptr;  // null but where that is where they go
};
static_assert(sizeof(Place) == 64, "one cache line for each term");

class Builder {
 public:
  Builder(const TermRows& rows, int64_t first, int64_t last, const Interrupt& interrupt)
      : rows_(rows), first_(first), last_(last), interrupt_(interrupt), slots_(rows.n_terms) {}

  PostingArrays build(const int32_t* only, int64_t n_only) {
    count(only, n_only);
    lay_out();
    with_weights(rows_, [&](const auto& weight) { cap(weight), place(weight, only == nullptr); });
    for (const Coder& coder : coders_) out_.residual.push_back(coder.residual());
    for (auto crest = crests_.rbegin(); crest != crests_.rend(); ++crest) insert(*crest);
    return std::move(out_);
  }

 private:
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
    std::vector<Term> found(1);  // by number as they come, from 1 on
    PagedTable<uint8_t> asked(rows_.n_terms);
    for (int64_t i = 0; i < n_only; ++i)
      if (only[i] >= 0 && only[i] < rows_.n_terms) asked.set(only[i]) = 1;
    with_weights(rows_, [&](const auto& weight) {
      for_entries([](int64_t) {}, [&](int64_t row, int64_t at, int64_t term) {
        if (only && !asked[term]) return;
        if (!slots_[term]) {
          slots_.set(term) = static_cast<int32_t>(found.size());
          found.push_back({static_cast<int32_t>(term)});
        }
        Term& own = found[slots_[term]];
        const float value = weight(at, row);
        ++own.count, own.least = std::min(own.least, value), own.largest = std::max(own.largest, value);
        own.whole = own.whole && is_whole(value);
      });
    });
    std::sort(found.begin() + 1, found.end(), [](const Term& a, const Term& b) { return a.term < b.term; });
    for (size_t i = 1; i < found.size(); ++i) {
      slots_.set(found[i].term) = static_cast<int32_t>(i);
      out_.terms.push_back(found[i].term), out_.counts.push_back(found[i].count);
      coders_.push_back(coder_of(found[i])), largest_.push_back(found[i].largest);
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
      const PostingKind kind = n_docs * DENSE_SHARE >= n && n_docs >= LEAST_COLUMN ? PostingKind::column
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

  // Cap the columns: a bound on what they add is the tighter, and so is that on their rounding.
  template <class Weight>
  void cap(const Weight& weight) {
    std::vector<std::vector<float>> sampled(out_.terms.size());
    const int64_t step = std::max<int64_t>(1, (last_ - first_) / SAMPLE);
    for (int64_t row = first_; row < last_; row += step)
      for (int64_t at = rows_.offsets[row]; at < rows_.offsets[row + 1]; ++at) {
        const int32_t t = slots_[rows_.term(at)] - 1;
        if (t >= 0 && out_.kinds[t] == static_cast<uint8_t>(PostingKind::column)) sampled[t].push_back(weight(at, row));
      }
    for (size_t t = 0; t < sampled.size(); ++t) {
      std::vector<float>& own = sampled[t];
      if (own.size() < SAMPLE / DENSE_SHARE / 2 || coders_[t].zero) continue;
      const auto place = own.begin() + own.size() * CAPPED_PERCENT / 100;
      std::nth_element(own.begin(), place, own.end());
      const float largest = largest_[t];
      if (*place > CAP_SHARE * largest) continue;
      crests_.push_back({t, *place, coder_of({0, 0, 0, largest - *place, false}), {}});
      coders_[t] = coder_of({0, 0, 0, *place, false}), out_.scale[t] = coders_[t].scale;
    }
  }

  // A crest's postings are those of its term, too: after its column.
  void insert(const Crest& crest) {
    if (crest.postings.empty()) return;
    const auto put = [&](auto& values, auto value) {
      values.insert(values.begin() + static_cast<int64_t>(crest.term) + 1, value);
    };
    put(out_.terms, out_.terms[crest.term]);
    put(out_.counts, static_cast<int32_t>(crest.postings.size()));
    put(out_.scale, crest.coder.scale), put(out_.residual, crest.coder.residual());
    put(out_.zero, static_cast<uint8_t>(0)), put(out_.kinds, static_cast<uint8_t>(PostingKind::rare));
    put(out_.place, static_cast<int64_t>(out_.rare.size()));
    out_.rare.insert(out_.rare.end(), crest.postings.begin(), crest.postings.end());
  }

  // Where the next postings of each term go.
  std::vector<Place> places() {
    std::vector<Place> all(out_.terms.size());
    for (size_t t = 0; t < all.size(); ++t) {
      Place& own = all[t];
      own.coder = coders_[t];
      const int64_t place = out_.place[t];
      if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::rare)) own.rare = out_.rare.data() + place;
      else if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::list))
        own.docs = out_.list_docs.data() + out_.lists[place], own.levels = out_.list_levels.data() + out_.lists[place];
      else own.docs = &ignored_, own.levels = out_.columns.data() + place * windows() * WINDOW, own.step = 0;
    }
    for (size_t i = 0; i < crests_.size(); ++i) {
      Place& own = all[crests_[i].term];
      own.crest = static_cast<int32_t>(i), own.cap = crests_[i].cap;
    }
    return all;
  }

  void note_starts(int64_t window, const std::vector<Place>& places) {
    for (size_t t = 0; t < places.size(); ++t)
      if (out_.kinds[t] == static_cast<uint8_t>(PostingKind::list))
        out_.starts[out_.place[t] * (windows() + 1) + window] =
            static_cast<uint32_t>(places[t].docs - out_.list_docs.data() - out_.lists[out_.place[t]]);
  }

  // `ahead`: whether it is worth fetching what the entries to come need.
  template <class Weight>
  void place(const Weight& weight, bool ahead) {
    std::vector<Place> all = places();
    if (all.empty()) return;  // none of the terms occurs
    int64_t start = 0;  // of the window
    const auto begin = [&](int64_t w) { note_starts(w, all), start = w * WINDOW; };
    const int64_t end = ahead ? rows_.offsets[last_] : 0;
    for_entries(begin, [&](int64_t row, int64_t at, int64_t term) {
      if (at + SOON < end) {
        __builtin_prefetch(&all[std::max(slots_[rows_.term(at + SOON)] - 1, 0)]);
        const Place& next = all[std::max(slots_[rows_.term(at + SOON / 2)] - 1, 0)];
        __builtin_prefetch(next.docs, 1), __builtin_prefetch(next.levels + ((row - first_) & (next.step - 1)), 1);
      }
      const int32_t t = slots_[term] - 1;
      if (t < 0) return;
      Place& own = all[t];
      const int64_t doc = row - first_;
      double value = weight(at, row);
      if (value > own.cap) {
        Crest& crest = crests_[own.crest];
        crest.postings.push_back(static_cast<uint64_t>(doc) << 8 | crest.coder.code(value - own.cap));
        value = own.cap;
      }
      const uint8_t level = own.coder.code(value);
      if (own.rare) {
        *own.rare++ = static_cast<uint64_t>(doc) << 8 | level;
      } else {  // lists and columns alternate in a way that no branch foresees
        own.levels[doc & (own.step - 1)] = level;
        *own.docs = static_cast<uint16_t>(doc - start);
        own.levels += own.step, own.docs += own.step;
      }
    });
    note_starts(windows(), all);
    for (size_t t = 0; t < all.size(); ++t) coders_[t].worst = all[t].coder.worst;
  }

  const TermRows& rows_;
  int64_t first_, last_;
  const Interrupt& interrupt_;
  PagedTable<int32_t> slots_;  // [n_terms] a term's number from 1 on, 0 where it is not wanted
  std::vector<Coder> coders_;
  std::vector<float> largest_;  // weight of each term, or 0
  std::vector<Crest> crests_;
  uint16_t ignored_ = 0;       // the document that a column's level comes with
  PostingArrays out_;
};

}  // namespace

PostingArrays build_postings(const TermRows& rows, int64_t first, int64_t last, const int32_t* only, int64_t n_only,
                             const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  return Builder(rows, first, last, interrupt).build(only, n_only);
}

}  // namespace pyengine

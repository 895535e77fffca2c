// Lists are read a group of windows at a time: where each window's postings lie is found first, so that they can be
// fetched before they are added.
#include "cpu/sparse_reader.h"

#include <algorithm>
#include <numeric>

namespace pyengine {
namespace {

constexpr int64_t AHEAD = 16;  // chunks that are fetched before they are added

void prefetch(const QueryTerm& term, Chunk chunk) {
  for (uint32_t i = 0; i < chunk.n; i += 32) __builtin_prefetch(term.docs + chunk.first + i, 0, 2);
  for (uint32_t i = 0; i < chunk.n; i += 64) __builtin_prefetch(term.levels + chunk.first + i, 0, 2);
}

uint32_t window_of(uint64_t posting) {
  return static_cast<uint32_t>(std::min<uint64_t>((posting >> 8) / WINDOW, RareRead::NONE));
}

void add_rare(const QueryTerm& term, int64_t window, RareRead& read, int16_t* sums) {
  do {
    const uint64_t posting = term.rare[read.at];
    sums[(posting >> 8) % WINDOW] += term.weigh(static_cast<uint8_t>(posting));
    read.window = ++read.at < term.n ? window_of(term.rare[read.at]) : RareRead::NONE;
  } while (read.window <= window);
}

}  // namespace

void PostingReader::gather(const std::vector<SparseQuery>& queries, size_t p) {
  lists_.clear(), rare_.clear(), spans_.assign(queries.size(), {}), order_.resize(queries.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto levels = [&](size_t q) {
    return queries[q].columns[p].empty() ? nullptr : queries[q].columns[p].back().levels;
  };
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return levels(a) < levels(b); });
  for (const size_t q : order_) {
    const SparseQuery& query = queries[q];
    Span& span = spans_[q];
    span = {static_cast<int64_t>(lists_.size()), 0, static_cast<int64_t>(rare_.size()), 0, &query.columns[p]};
    lists_.insert(lists_.end(), query.lists[p].begin(), query.lists[p].end());
    rare_.insert(rare_.end(), query.rare[p].begin(), query.rare[p].end());
    span.last_list = static_cast<int64_t>(lists_.size()), span.last_rare = static_cast<int64_t>(rare_.size());
  }
}

void PostingReader::find(ReaderState& state, int64_t first, int64_t last) const {
  state.first = first;
  find_chunks(state, last);
  find_rare(state);
}

// In the order in which they will be read.
void PostingReader::find_chunks(ReaderState& state, int64_t last) const {
  state.chunks.resize((last - state.first) * lists_.size());
  for (size_t t = 0; t < lists_.size(); ++t) {
    const QueryTerm& term = lists_[t];
    if (t + AHEAD < lists_.size()) __builtin_prefetch(lists_[t + AHEAD].starts + state.first);
    const auto start = [&](int64_t window) {  // whatever a mapped file holds
      return static_cast<uint32_t>(std::min<int64_t>(term.starts[window], term.n));
    };
    uint32_t begin = start(state.first);
    for (int64_t window = state.first; window < last; ++window) {
      const uint32_t end = std::max(begin, start(window + 1));
      state.chunks[(window - state.first) * lists_.size() + t] = {begin, end - begin};
      begin = end;
    }
  }
}

void PostingReader::find_rare(ReaderState& state) const {
  state.rare.resize(rare_.size());
  for (size_t t = 0; t < rare_.size(); ++t) {
    const uint64_t *begin = rare_[t].rare, *end = begin + rare_[t].n;
    const uint64_t* at = std::lower_bound(begin, end, static_cast<uint64_t>(state.first * WINDOW) << 8);
    state.rare[t] = {static_cast<uint32_t>(at - begin), at < end ? window_of(*at) : RareRead::NONE};
  }
}

bool PostingReader::add(ReaderState& state, int64_t window, size_t query, int16_t* sums) const {
  const Span& span = spans_[query];
  const int64_t n = static_cast<int64_t>(lists_.size()), before = (window - state.first) * n;
  const Chunk* chunks = state.chunks.data() + before;
  const int64_t left = static_cast<int64_t>(state.chunks.size()) - before;
  for (int64_t t = span.list; t < span.last_list; ++t) {
    const int64_t soon = t + AHEAD;
    if (soon < left) prefetch(lists_[soon < n ? soon : soon % n], chunks[soon]);
    const QueryTerm& term = lists_[t];
    const auto [first, count] = chunks[t];
    table_.add_postings(term.docs + first, term.levels + first, static_cast<int>(count), term.factor, term.zero, sums);
  }
  for (int64_t t = span.rare; t < span.last_rare; ++t) {
    const size_t soon = t + AHEAD;
    if (soon < rare_.size() && state.rare[soon].window == window)
      __builtin_prefetch(rare_[soon].rare + state.rare[soon].at);
    if (state.rare[t].window <= window) add_rare(rare_[t], window, state.rare[t], sums);
  }
  return span.list < span.last_list || span.rare < span.last_rare;
}

void PostingReader::add_columns(size_t query, int64_t window, int16_t* sums) const {
  for (const QueryTerm& term : columns(query))
    table_.add_column(term.levels + window * WINDOW, WINDOW, term.factor, term.zero, sums);
}

}  // namespace pyengine

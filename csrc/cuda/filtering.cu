// Filters by refined scores, one block to a query: what it may get of what its pool lists. The counterpart of
// kernels/filtering.py. First what is excluded leaves; then the members of each group are made to follow one another, the
// best first, so that one has enough before it if the place so many before is of the same group; of the rest stays what
// lies in the range. 16,384 places are sorted by 105 steps of 8,192 comparisons, whatever the groups are.
#include "filtering.cuh"
#include "selection.cuh"

namespace pyengine::cuda {
namespace {

// The pool of a query: `labels` are of all documents, as is `order` (null: that of the rows).
struct Listed {
  float* scores;
  int32_t* rows;
  const int32_t* order;
  const int64_t* labels;
  bool negate;

  DEVICE float rank(int64_t at) const { return negate ? -scores[at] : scores[at]; }
  DEVICE int32_t place(int64_t at) const { return order ? order[rows[at]] : rows[at]; }
  DEVICE int64_t label(int64_t at) const { return labels[rows[at]]; }

  // By groups, and the best of each first.
  DEVICE bool before(int64_t a, int64_t b) const {
    const int64_t own = label(a), other = label(b);
    return own != other ? own < other : ranking_key(rank(a), place(a)) > ranking_key(rank(b), place(b));
  }

  DEVICE void exchange(int64_t a, int64_t b) const {
    const float score = scores[a];
    const int32_t row = rows[a];
    scores[a] = scores[b];
    rows[a] = rows[b];
    scores[b] = score;
    rows[b] = row;
  }

  DEVICE void sort(int64_t count) const {
    for (int64_t size = 2; size < 2 * count; size *= 2)
      for (int64_t stride = size / 2; stride > 0; stride /= 2) {
        for (int64_t number = threadIdx.x; meeting(number, size, stride).low < count; number += SELECT_THREADS) {
          const Meeting pair = meeting(number, size, stride);
          if (pair.high < count && before(pair.high, pair.low)) exchange(pair.low, pair.high);
        }
        __syncthreads();
      }
  }
};

// Of `count` places those that are to `keep` go to another pool, in their order: how many.
template <class Keep>
DEVICE int moved(SelectShared& shared, const Listed& from, const Listed& to, int count, Keep keep_of) {
  int kept = 0;
  for (int at = 0; at < count; at += SELECT_THREADS) {
    const int place = at + threadIdx.x;
    const bool keep = place < count && keep_of(place);
    const int other = place_kept(shared, keep, kept);
    if (keep) {
      to.scores[other] = from.scores[place];
      to.rows[other] = from.rows[place];
    }
  }
  __syncthreads();
  return kept;
}

}  // namespace

// What the filters leave comes first in each pool, and its number goes to `counts`. Queries are those from the `first` on
// of those that the filters are of; of `excluded` rows each has offsets[q] .. offsets[q + 1]. `order`, `excluded`,
// `labels`, `least` and `mark` may be null. What `scores` and `rows` held passes through `room` and `more_room`.
KERNEL(filter_pools, SELECT_THREADS)(float* scores, int32_t* rows, float* room, int32_t* more_room, int32_t* counts,
                                     const int32_t* order, const int32_t* excluded, const int64_t* offsets,
                                     const int64_t* labels, const double* least, const double* mark,
                                     const int32_t* place, int64_t capacity, int64_t first, int64_t per_group,
                                     int64_t negate) {
  __shared__ SelectShared shared;
  const int64_t start = blockIdx.x * capacity, query = first + blockIdx.x;
  const Listed pool{scores + start, rows + start, order, labels, negate != 0};
  const Listed some{room + start, more_room + start, order, labels, negate != 0};
  const int32_t* own = excluded ? excluded + offsets[query] : nullptr;
  const int64_t n_excluded = excluded ? offsets[query + 1] - offsets[query] : 0;
  int count = static_cast<int>(min(static_cast<int64_t>(counts[blockIdx.x]), capacity));
  count = moved(shared, pool, some, count, [&](int at) { return !listed_in(own, n_excluded, pool.rows[at]); });
  if (labels) some.sort(count);
  const Range range{least ? least[query] : -INFINITY, mark ? mark[query] : INFINITY, mark ? place[query] : 0};
  count = moved(shared, some, pool, count, [&](int at) {
    if (labels && at >= per_group && some.label(at - per_group) == some.label(at)) return false;
    return within(range, some.rank(at), some.place(at));
  });
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

}  // namespace pyengine::cuda

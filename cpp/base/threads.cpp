#include "base/threads.hpp"

#include <omp.h>

#include <algorithm>
#include <exception>

namespace overparam {

int default_threads() { return omp_get_max_threads(); }

void parallel_for(Index count, int threads, const std::function<void(Index)>& body) {
    const int team =
        static_cast<int>(std::min<Index>(std::max(threads, 1), std::max<Index>(count, 1)));
    if (team == 1) {
        for (Index i = 0; i < count; ++i) body(i);
        return;
    }
    std::exception_ptr error;
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (Index i = 0; i < count; ++i) {
        try {
            body(i);
        } catch (...) {
#pragma omp critical(overparam_parallel_for_error)
            if (!error) error = std::current_exception();
        }
    }
    if (error) std::rethrow_exception(error);
}

}  // namespace overparam

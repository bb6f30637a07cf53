#include "base/status.hpp"

namespace overparam {

const char* message(Status status) {
    switch (status) {
        case Status::SUCCESS:
            return "finished";
        case Status::STEADY_STATE:
            return "a steady state was reached before the last requested time";
        case Status::MAX_STEPS:
            return "the largest allowed number of steps was used up";
        case Status::STEP_UNDERFLOW:
            return "the step that the tolerances ask for is below the resolution of the time "
                   "variable; "
                   "rtol and atol may be too small";
        case Status::NOT_CONVERGED:
            return "the iteration did not converge, or the solution that was asked for does not "
                   "exist";
        case Status::DIVERGED:
            return "the solution diverged (values that are not finite)";
        case Status::INTERRUPTED:
            return "the run was interrupted";
    }
    return "unknown status";
}

}  // namespace overparam

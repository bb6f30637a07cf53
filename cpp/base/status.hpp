// How a computation ended.
#pragma once

namespace overparam {

enum class Status {
    SUCCESS,
    STEADY_STATE,
    MAX_STEPS,
    STEP_UNDERFLOW,
    NOT_CONVERGED,
    DIVERGED,
    INTERRUPTED,
};

// The only copy of the sentence that a user reads for each status.
const char* message(Status status);

}  // namespace overparam

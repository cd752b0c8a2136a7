package check

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/ops"
)

// readyLimit is how long a rollcall may take to say whether it is ready.
const readyLimit = 2 * time.Second

// Ready asks the rollcall at baseURL whether it is ready, and says what it answers in a line.
func Ready(ctx context.Context, baseURL string) (Level, string) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	r, err := ops.Ready(ctx, baseURL)
	said := (&state{}).clean(r.Summary())
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Failure, "nothing listens on " + baseURL + ": is rollcall running?"
	case errors.Is(err, context.DeadlineExceeded):
		return Failure, fmt.Sprintf("no answer from %s%s within %s",
			baseURL, ops.PathReady, readyLimit)
	case err != nil:
		return Failure, (&state{}).clean(err.Error())
	case !r.Ready:
		return Failure, said
	}
	return OK, said
}

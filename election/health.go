package election

import (
	"fmt"
	"net/http"
)

// Check returns nil if this process may go on: it leads, or it does not and knows
// it. An error says that the leadership was lost longer ago than the grace
// (WithGrace), and the leader has not stopped: fn of Run has not returned, or nobody
// has called Resign. Restart the process then.
//
// It also fails, as lease.Client.Check does, once the store has answered no request
// for two TTLs. A restart mends nothing then, but somebody should know. No I/O.
func (e *Election) Check() error {
	for _, t := range e.open() {
		if since := t.sinceDeposed(); since >= e.grace {
			return fmt.Errorf("election: %q: still at work %v after the loss of the leadership with token %d",
				e.name, since, t.Token())
		}
	}
	if err := e.client.Check(); err != nil {
		return fmt.Errorf("election: %q: %w", e.name, err)
	}
	return nil
}

// Health returns a handler for health checks. It answers 200 on a leader and on a
// follower, and 503 when Check fails. A request with the query "leader" (GET
// /healthz?leader) gets 200 on the leader only, and 503 on the others: so a load
// balancer sends its traffic to the leader. The body says which, in one line. The
// handler does no I/O. It waits for nothing that the leader's work could hold up.
func (e *Election) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leads, status, text := e.IsLeader(), http.StatusOK, "follower"
		if leads {
			text = "leader"
		} else if r.URL.Query().Has("leader") {
			status = http.StatusServiceUnavailable
		}
		if err := e.Check(); err != nil {
			status, text = http.StatusServiceUnavailable, err.Error()
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = fmt.Fprintln(w, text) // the client may have gone
	})
}

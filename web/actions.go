package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// The names of actions.
const (
	actionBreak    = "break"
	actionStepDown = "step-down"
	actionPause    = "pause"
	actionResume   = "resume"
)

// titles are those of the pages of actions. One that is none has another.
var titles = map[string]string{
	actionBreak: "Break a lock", actionStepDown: "Make a leader step down",
	actionPause: "Pause a partition", actionResume: "Resume a partition", "": "No such action",
}

// actionTimeout is how long a request waits for what it asked for. What was begun
// goes on by itself.
const actionTimeout = time.Minute

// maxForm bounds what a form may send, in bytes.
const maxForm = 16 << 10

// form is an action as the page asks for it.
type form struct {
	Action
	// Holder is who has the key, as it was read for this form. nil: it was not.
	Holder *lease.Holder
	// Pool and Partition are those of the key, if it is a partition's.
	Pool, Partition string
	// Back is the page to go back to.
	Back string
	// Typed is what was typed to confirm the action, Problem why nothing was done.
	Typed, Problem string
	// Done says how it went.
	Done string
}

// parseForm reads the action that a request is about.
func parseForm(r *http.Request) (*form, error) {
	f := &form{Action: Action{Name: r.FormValue("do"), Key: r.FormValue("key")}, Back: "locks",
		Typed: r.PostFormValue("typed")}
	if name, ok := strings.CutPrefix(f.Key, rows.PoolKeys); ok {
		f.Pool, f.Partition, _ = strings.Cut(name, "/")
		f.Back = "pool?" + url.Values{"name": {f.Pool}}.Encode()
	}
	ofElection := strings.HasPrefix(f.Key, rows.ElectionKeys)
	switch {
	case f.Name == actionBreak && f.Key != "" && !ofElection:
	case f.Name == actionStepDown && ofElection:
		f.Back = "elections"
	case (f.Name == actionPause || f.Name == actionResume) && f.Partition != "":
		return f, nil // it is about the partition, whoever has it
	default:
		return nil, fmt.Errorf("no such action: do=%.40q with key=%.40q", f.Name, f.Key)
	}
	var err error
	if f.Token, err = strconv.ParseUint(r.FormValue("token"), 10, 64); err != nil || f.Token == 0 {
		return nil, fmt.Errorf("token=%.40q: want the number of the acquisition that was seen", r.FormValue("token"))
	}
	return f, nil
}

// ask shows the form that confirms an action.
func (h *handler) ask(w http.ResponseWriter, r *http.Request) {
	f, err := parseForm(r)
	if err != nil {
		h.showForm(w, r, http.StatusBadRequest, &form{Back: "./", Problem: err.Error()})
		return
	}
	status, problem := h.readHolder(r.Context(), f)
	f.Problem = problem
	h.showForm(w, r, status, f)
}

// act does what a confirmed form asks for.
func (h *handler) act(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	f, err := parseForm(r)
	if err != nil {
		h.showForm(w, r, http.StatusBadRequest, &form{Back: "./", Problem: err.Error()})
		return
	}
	who, err := h.authorize(r, f.Action)
	if err != nil {
		h.log.WarnContext(r.Context(), "web: action refused", "action", f.Name, "key", f.Key, "who", who, "error", err)
		f.Problem = "refused: " + err.Error()
		h.showForm(w, r, http.StatusForbidden, f)
		return
	}
	status, problem := h.readHolder(r.Context(), f)
	if problem == "" && f.Typed != f.Key {
		status, problem = http.StatusUnprocessableEntity, "what was typed is not the key: nothing was done"
	}
	if f.Problem = problem; problem == "" {
		status = h.do(r.Context(), f, who)
	}
	h.showForm(w, r, status, f)
}

// readHolder reads who has the key of a form that is about an acquisition. problem
// says that it is another one by now.
func (h *handler) readHolder(ctx context.Context, f *form) (status int, problem string) {
	holder, err := h.client.Holder(ctx, f.Key)
	switch {
	case err != nil:
		return http.StatusServiceUnavailable, err.Error()
	case f.Token == 0:
	case !holder.Held():
		return http.StatusConflict, "nobody holds it any more"
	case holder.Token != f.Token:
		return http.StatusConflict, fmt.Sprintf("it is not held under token %d any more: %s has it under token %d",
			f.Token, holder.Owner, holder.Token)
	}
	f.Holder = holder
	return http.StatusOK, ""
}

// do does it, logs it, and says in the form how it went.
func (h *handler) do(ctx context.Context, f *form, who string) (status int) {
	ctx, cancel := h.clock.WithTimeout(ctx, actionTimeout)
	defer cancel()
	began := h.clock.Now()
	err := h.perform(ctx, f)
	took := h.clock.Now().MonotonicSince(began)
	args := []any{
		"action", f.Name, "key", f.Key, "token", f.Token, "holder", f.Holder.Owner, "who", who, "took", took, "error", err,
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		h.log.WarnContext(ctx, "web: action goes on", args...)
		f.Done = "Asked for, and not confirmed within " + duration(actionTimeout) +
			": it goes on by itself. Look again later."
		return http.StatusAccepted
	}
	if err != nil {
		h.log.ErrorContext(ctx, "web: action failed", args...)
		f.Problem = err.Error()
		return http.StatusBadGateway
	}
	h.log.WarnContext(ctx, "web: action", args...)
	f.Done = "Done after " + duration(took) + "."
	return http.StatusOK
}

func (h *handler) perform(ctx context.Context, f *form) error {
	if f.Name == actionBreak || f.Name == actionStepDown {
		return h.client.Break(ctx, f.Holder)
	}
	p, err := pool.New(h.client, f.Pool, nil)
	if err != nil {
		return err
	}
	if f.Name == actionPause {
		return p.Pause(ctx, f.Partition)
	}
	return p.Resume(ctx, f.Partition)
}

// showForm answers with the form, or with how it went.
func (h *handler) showForm(w http.ResponseWriter, r *http.Request, status int, f *form) {
	h.show(w, r, &view{Name: "act", Title: titles[f.Name], Query: url.Values{}, Data: f, Plain: true, status: status})
}

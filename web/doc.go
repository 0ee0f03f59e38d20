// Package web shows in a browser what is held, by whom, and who has fallen silent.
//
//	http.Handle("/locks/", http.StripPrefix("/locks", web.Handler(client)))
//
// It has pages for locks, sessions, elections, pools and jobs that are done once,
// which keep themselves up to date. They are HTML made here, and one small script:
// nothing comes from elsewhere. Without the script they reload themselves.
//
// # What it shows
//
// Whether a holder is alive is judged as a contender judges it (R10 of
// docs/design.md), by watching its heartbeats, on the clock of the server of the
// page. No two machines' clocks are compared. The page ends no session. A session is
//
//	live      its heartbeats were seen
//	watched   the page has not watched for long enough to see one
//	overdue   it was silent for two thirds of its TTL: two heartbeats are missing
//	expired   it was silent for the TTL and a sixteenth: whoever wants its locks
//	          gets them now
//	gone      it has no row: its locks are free for whoever asks
//
// How long a lock is held, and when a job ran, is by the wall clock of who wrote it.
// Who waits for a lock is not in the store, so the page does not show it.
//
// # What it costs
//
// All who look share what is read, and nothing is read when nobody looks. The
// overview, locks, sessions and elections cost a listing of the sessions and three of
// the keys every two seconds (WithInterval), eventually consistent: on DynamoDB a
// thousand locks and a hundred sessions are about 70 read units. Partitions and slots
// are left out. Those of one pool are listed every ten seconds while its page is open,
// slots while theirs is. The overview and the list of pools look for the names of
// pools as often, a read for each. The page of a key costs two strong reads each time.
//
// # Who may see it
//
// Whoever reaches the handler sees the names of all locks and processes. Put it behind
// whatever protects your other internal pages. It writes nothing, unless WithActions
// says who may; then requests from other sites are refused.
package web

// Package gocronlock lets several processes share the jobs of gocron schedulers
// (github.com/go-co-op/gocron/v2).
//
//	once := lock.NewOnce(client, "invoices")
//	hourly, err := gocronlock.New(once, time.Hour)
//	...
//	_, err = scheduler.NewJob(
//		gocron.CronJob("0 * * * *", false), gocron.NewTask(send),
//		gocron.WithName("send"), gocron.WithDistributedJobLocker(hourly))
//
// # Which one
//
//   - [New] is for a job with a fixed period. It runs once per period, whichever
//     process is first. Others hear that it was done, however much later they ask.
//   - [NewHolding] is for a job without a fixed period. Its lock is held for a
//     while, so that a short job is over everywhere before others can start it.
//   - [NewElector] is for a scheduler whose jobs all run on one process.
//
// A bare lock is not enough. A job of 10 ms is done before a scheduler whose clock
// is 50 ms late asks for the lock, and then runs again.
//
// # What gocron does not tell
//
// gocron gives a lock no chance to stop the job, and does not tell it the job's
// error. So a job whose lease is lost runs on, and a job that fails is recorded as
// done. A job that needs either calls [lock.Once.Do] or [lock.Mutex.Do] itself.
// gocron skips a job that it may not run. It says so to
// gocron.AfterLockError and to nobody else.
package gocronlock

// Package idempotency is middleware of net/http that does a request once, however
// often it is sent and to whichever process. A client names the request by the
// header Idempotency-Key, and sends the same again when it got no answer.
//
//	once := lock.NewOnce(client, "payments")
//	wrap, err := idempotency.New(once, store, userOf) // userOf: a request's user
//	...
//	http.Handle("POST /payments", wrap(pay))
//
// # What a repeated request gets
//
//	its answer is kept            the same answer, with Idempotency-Replayed: true
//	it is being worked on         409 and Retry-After. With lock.Wait it waits.
//	its body or path is another   422
//	the handler panicked          500, unless the Once has lock.RetryFailed
//	its process died              500, unless the Once has lock.TakeOver
//	its answer was too long       410: it was done, and the answer was not kept
//	the store is away             503 and Retry-After. The handler is not called.
//
// Any answer of the handler is kept, an error's too. The handler's context does
// not end when the client hangs up: the work is finished, for who asks again. It
// ends when the lease is lost, as lock.Once.Do says.
package idempotency

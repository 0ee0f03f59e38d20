/*
 * Turns between processes (R20): the queue that stands in a lease's own row. session.pml has what this one takes for granted: what
 * becomes of sessions, and of writes that are sent twice. Here the row is always there. One that is deleted counts as unowned.
 *
 * Time is a count of polls. In each, whoever runs acts once: it reads the row and may write over what it has read. Who is paused
 * does not act, and may be killed meanwhile. A pause that never ends is a crash. A write may lose its answer, or land late or never,
 * its outcome unknown. A client is *prompt* until something of that kind happens to it: it answers within its grace.
 *
 * It begins with one who holds the key and the others in the queue, or, if FRESH, with a key that is free.
 *
 * Each VARIANT_ breaks one rule. The model must hold without them and fail with any of them: see check.
 */
#if defined(VARIANT_GRACE_COUNTED_ON_THE_VERSION) || defined(VARIANT_BACK_UNDER_THE_SAME_ID)
#define CLIENTS 2          /* shown by two clients, in a longer run */
#define ROUNDS 3
#define POLLS 7
#elif defined(VARIANT_ENTRIES_WITHOUT_A_VERSION)
#define FRESH
#define CLIENTS 2
#elif defined(VARIANT_GRACE_OF_ANOTHER_ENTRY)
#define ROUNDS 2
#define POLLS 5
#define FAULTS 0
#endif
#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef ROUNDS
#define ROUNDS 1           /* acquires of a client */
#endif
#ifndef ENTRIES
#define ENTRIES 2          /* of a client into the queue */
#endif
#ifndef POLLS
#define POLLS 6            /* after that nothing happens any more */
#endif
#ifndef FAULTS
#define FAULTS 1           /* pauses, and writes that lose their answer, land late or never */
#endif
#define GRACE 2            /* polls */
#define NOBODY 255
#define NONE 255           /* no entry */
#define OF(e) (e % CLIENTS) /* whose entry it is */
#define MINE(e) (e != NONE && OF(e) == me)

mtype = { ENTER, TAKE, REST };             /* writes: REST is any other */
mtype = { AWAY, WAITS, HOLDS, OVER };      /* what a client does */
mtype = { YES, NO, UNKNOWN };              /* outcomes (S4) */

typedef Row { byte owner, acq, res, q0, q1, q2 }

/* The row, and its version. */
Row row;
byte ver;
bool dead[CLIENTS];                        /* proven (R10) */
byte now;
bool acted[CLIENTS];                       /* in this poll */
bool down[CLIENTS];                        /* paused, or crashed */
mtype state[CLIENTS];
/* Only the assertions read these. */
bool prompt[CLIENTS];
bool entered[CLIENTS];                     /* an entry of it has landed, and nobody was to take it out */
byte since[CLIENTS];                       /* since when it waits, and is prompt */
byte granted;                              /* the acquisition that was granted last */
byte reserved;                             /* since when the row is reserved for the one that it names */

bool ok;                                   /* whether the write of the step in progress was applied */
byte faults;
chan late[FAULTS + 1] = [1] of { mtype, byte, byte, byte, byte, byte, byte, byte, byte };

#define IN(r, c) ((r.q0 != NONE && OF(r.q0) == c) || (r.q1 != NONE && OF(r.q1) == c) || (r.q2 != NONE && OF(r.q2) == c))
/* c stands before d in the row. */
#define BEFORE(c, d) (IN(row, c) && (!IN(row, d) || OF(row.q0) == c || (OF(row.q0) != d && OF(row.q1) == c)))

/* land is a write's arrival. v is the version it is conditional on (S2). */
inline land(op, who, v, a, b, c, d, e, f) {
	ok = false;
	if
#ifdef VARIANT_ENTRIES_WITHOUT_A_VERSION
	:: ver == v || op == ENTER ->
#else
	:: ver == v ->
#endif
		i = 0;
		do
		:: i < CLIENTS ->
			/* A grant: nobody holds the key who is alive (I3). In order (I15): nobody prompt stands before who takes it. An orphan
			   that the same call takes again is no other grant. */
			assert(op != TAKE || i == who || state[i] != HOLDS || dead[i]);
			assert(op != TAKE || i == who || (row.owner == who && row.acq != granted) || !prompt[i] || !entered[i] || !BEFORE(i, who));
			i++
		:: else -> break
		od;
		if
		:: row.res != d && d != NONE -> reserved = now
		:: else
		fi;
		row.owner = a; row.acq = b; row.res = d; row.q0 = c; row.q1 = e; row.q2 = f; ver++; ok = true;
		if
		:: op == ENTER -> entered[who] = true
		:: op != ENTER -> entered[who] = entered[who] && IN(row, who)
		fi;
		i = 0;
		do
		:: i < CLIENTS ->
			assert(i == who || !prompt[i] || !entered[i] || IN(row, i));  /* I16 */
			entered[i] = entered[i] && IN(row, i);
			i++
		:: else -> break
		od;
		i = 0
	:: else -> i = 0
	fi
}

/* send is the write of n over version v, with its outcome in res. */
inline send(op) {
	atomic {
		if
		:: land(op, me, v, n.owner, n.acq, n.q0, n.res, n.q1, n.q2); res = (ok -> YES : NO)
		:: faults < FAULTS -> faults++; prompt[me] = false;
			land(op, me, v, n.owner, n.acq, n.q0, n.res, n.q1, n.q2); res = UNKNOWN
		:: faults < FAULTS -> late[faults]!op, me, v, n.owner, n.acq, n.q0, n.res, n.q1, n.q2;
			faults++; prompt[me] = false; res = UNKNOWN
		fi;
		n.owner = 0; n.acq = 0; n.res = 0; n.q0 = 0; n.q1 = 0; n.q2 = 0; v = 0
	}
}

/* Wire is where a late write is until it lands, or does not. */
proctype Wire(byte w) {
	mtype op; byte who, v, a, b, c, d, e, f, i;
end:	atomic {
		late[w]?op, who, v, a, b, c, d, e, f;
		if :: op == ENTER -> op = REST :: else fi;   /* the call that sent it may be over */
		if
		:: d_step { land(op, who, v, a, b, c, d, e, f) }
		:: skip
		fi;
		op = 0; who = 0; v = 0; a = 0; b = 0; c = 0; d = 0; e = 0; f = 0
	}
}

/* read is a strong read of the row. */
inline read() {
	v = ver; n.owner = row.owner; n.acq = row.acq; n.res = row.res; n.q0 = row.q0; n.q1 = row.q1; n.q2 = row.q2
}

/* shift takes the first entry out, and without takes out those of c. */
inline shift() { n.q0 = n.q1; n.q1 = n.q2; n.q2 = NONE }
inline without(c) {
	if :: n.q2 != NONE && OF(n.q2) == c -> n.q2 = NONE :: else fi;
	if :: n.q1 != NONE && OF(n.q1) == c -> n.q1 = n.q2; n.q2 = NONE :: else fi;
	if :: n.q0 != NONE && OF(n.q0) == c -> shift() :: else fi
}

/* free is the one way in which a row is freed: reserved for the first of its queue. */
inline free() {
#ifdef VARIANT_FREED_WITHOUT_A_RESERVATION
	n.res = NONE;
#else
	n.res = n.q0;
#endif
	n.owner = NOBODY; n.acq = 0
}

/* own is what an acquiring write makes of the row (R9.2). */
inline own() {
#ifdef VARIANT_TAKER_DROPS_THE_QUEUE
	n.q0 = NONE; n.q1 = NONE; n.q2 = NONE;
#else
	without(me);
#endif
	acq = v + 1; n.owner = me; n.acq = acq; n.res = NONE
}

proctype Client(byte me) {
	mtype res;
	Row n;
	byte v, acq, entries, rounds, i;
#ifndef FRESH
	d_step { rounds = 1; entries = (me > 0 -> 1 : 0); acq = (me > 0 -> 0 : 1) };
#endif
	byte which = NONE, from;        /* the entry that the row was seen reserved for, and since when (R11) */
poll:	atomic {
		!acted[me] || now == POLLS;
		if
		:: now == POLLS || dead[me] -> goto over
		:: now < POLLS && !dead[me] && faults < FAULTS ->                      /* a pause, or a crash */
			faults++; prompt[me] = false; down[me] = true; goto paused
		:: now < POLLS && !dead[me] && state[me] == AWAY ->
			if
			:: row.owner == me -> read(); free(); goto rest                /* an orphan goes back (R14) */
			:: row.owner != me && rounds == ROUNDS -> goto over
			:: row.owner != me && rounds < ROUNDS -> goto act
			:: row.owner != me && rounds < ROUNDS ->
				rounds++; state[me] = WAITS; prompt[me] = true; since[me] = now; acq = 0; goto look
			fi
		:: now < POLLS && !dead[me] && state[me] == WAITS -> goto look
		:: now < POLLS && !dead[me] && state[me] == WAITS ->                   /* it leaves: one write, best effort */
			state[me] = AWAY; prompt[me] = false; entered[me] = false;
			if
			:: goto act
			:: IN(row, me) && row.owner != me -> read();
				if
				:: MINE(n.res) -> without(me); n.res = n.q0
				:: else -> without(me)
				fi;
				goto last
			fi
		:: now < POLLS && !dead[me] && state[me] == HOLDS -> goto act
		:: now < POLLS && !dead[me] && state[me] == HOLDS -> state[me] = AWAY; goto give
#ifdef VARIANT_HANDED_OVER_PAST_A_QUEUE
		:: now < POLLS && !dead[me] && state[me] == HOLDS && row.owner == me && row.acq == acq ->
			state[me] = WAITS; read(); own(); goto take
#endif
		fi;

look:		read();
		if   /* what it saw, and since when */
		:: n.owner == NOBODY && n.res != NONE ->
			if
#if defined(VARIANT_GRACE_COUNTED_ON_THE_VERSION)
			:: which != v -> which = v; from = now
#elif defined(VARIANT_ENTRIES_WITHOUT_A_VERSION)
#define FRESH
#define CLIENTS 2
#elif defined(VARIANT_GRACE_OF_ANOTHER_ENTRY)
			:: which == NONE -> which = n.res; from = now
#else
			:: which != n.res -> which = n.res; from = now
#endif
			:: else
			fi
		:: else
		fi;
		if
		:: n.owner == me && n.acq == acq -> own(); goto take                   /* an orphan of this call */
		:: n.owner == me && n.acq != acq -> free(); goto rest                  /* of an earlier one: given back */
		:: n.owner != NOBODY && n.owner != me && !dead[n.owner] ->
			if
			:: down[n.owner] -> dead[n.owner] = true; goto look            /* R10 */
			:: goto enter
			fi
		:: n.owner != NOBODY && n.owner != me && dead[n.owner] ->
#ifdef VARIANT_A_DEAD_HOLDERS_ROW_IS_ANYBODYS
			own(); goto take
#else
			if
			:: n.q0 == NONE || MINE(n.q0) -> own(); goto take
			:: else -> free(); goto rest
			fi
#endif
		:: n.owner == NOBODY && n.res == NONE -> own(); goto take
		:: n.owner == NOBODY && MINE(n.res) -> own(); goto take
		:: n.owner == NOBODY && n.res != NONE && !MINE(n.res) ->
			if
#if defined(VARIANT_RESERVATIONS_ARE_NOT_KEPT)
			:: own(); goto take
#elif defined(VARIANT_NOBODY_IS_PASSED_OVER)
			:: goto enter
#else
			:: now - from > GRACE ->
				assert(now - reserved >= GRACE);                       /* I16, also of who is not prompt */
				if :: n.q0 == n.res -> shift() :: else fi;
				if
				:: n.q0 == NONE || MINE(n.q0) -> own(); goto take
				:: else -> n.res = n.q0; goto rest
				fi
			:: now - from <= GRACE -> goto enter
#endif
			fi
		fi;

enter:		if
		:: !IN(n, me) && n.q2 == NONE && entries < ENTRIES ->
			if
			:: prompt[me]
			:: else -> prompt[me] = true; entered[me] = false; since[me] = now
			fi;
			if
			:: n.q0 == NONE -> n.q0 = me + CLIENTS * entries
			:: n.q0 != NONE && n.q1 == NONE -> n.q1 = me + CLIENTS * entries
			:: else -> n.q2 = me + CLIENTS * entries
			fi;
#ifndef VARIANT_BACK_UNDER_THE_SAME_ID
			entries++;
#endif
			goto write
		:: goto act                                                            /* it has not waited for long enough */
		fi;

give:		read();                                                                /* until it is known (R13) */
		if
		:: n.owner == me && n.acq == acq -> free(); goto back
		:: else -> goto act
		fi
	};
write:	send(ENTER); goto act;                                                         /* a conflict: at the next poll */
take:	send(TAKE);
	atomic {
		if
		:: res == YES -> state[me] = HOLDS; granted = acq; goto act
		:: res == NO -> goto look
		:: res == UNKNOWN -> goto act
		fi
	};
rest:	send(REST);
	atomic {
		if
		:: res == NO && state[me] == WAITS -> goto look
		:: else -> goto act
		fi
	};
last:	send(REST); goto act;
back:	send(REST);
	atomic {
		if
		:: res == NO -> goto give
		:: res == YES -> goto act
		:: res == UNKNOWN -> goto act                                          /* as an orphan, in the background */
		fi
	};
act:	atomic {
		n.owner = 0; n.acq = 0; n.res = 0; n.q0 = 0; n.q1 = 0; n.q2 = 0; v = 0; res = 0;
		acted[me] = true; goto poll
	};
paused:
end:	atomic { now < POLLS -> down[me] = false; acted[me] = true; goto poll };
over:	atomic {
		state[me] = OVER; dead[me] = true; down[me] = false; prompt[me] = false; entered[me] = false; since[me] = 0;
		which = 0; from = 0; acq = 0; rounds = 0; entries = 0; acted[me] = true
	}
}

#define ACTED(i) (acted[i] || down[i] || state[i] == OVER)
#if CLIENTS == 2
#define ALL (ACTED(0) && ACTED(1))
#else
#define ALL (ACTED(0) && ACTED(1) && ACTED(2))
#endif

/* Clock ends a poll when everybody who runs has acted. */
proctype Clock() {
	byte i;
end:	do
	:: atomic { now < POLLS && ALL ->
		now++;
		do
		:: i < CLIENTS ->
			/* Nobody blocks the key for longer than its grace. */
			assert(state[i] != WAITS || !prompt[i] || row.owner != NOBODY || row.res == NONE ||
				now - (since[i] > reserved -> since[i] : reserved) <= GRACE + 2);
			acted[i] = false; i++
		:: else -> break
		od;
		i = 0
	}
	od
}

init {
	byte i;
	atomic {
		row.owner = NOBODY; row.res = NONE; row.q0 = NONE; row.q1 = NONE; row.q2 = NONE; ver = 1;
		i = 0;
		do :: i < FAULTS -> run Wire(i); i++ :: else -> break od;
		i = 0;
#ifndef FRESH
		state[0] = HOLDS; row.owner = 0; row.acq = 1; granted = 1; row.q0 = 1;
		i = 1;
		do
		:: i < CLIENTS -> state[i] = WAITS; prompt[i] = true; entered[i] = true; i++
		:: else -> break
		od;
#if CLIENTS == 3
		row.q1 = 2;
#endif
#else
		do :: i < CLIENTS -> state[i] = AWAY; i++ :: else -> break od;
#endif
		i = 0;
		do :: i < CLIENTS -> run Client(i); i++ :: else -> break od;
		run Clock()
	}
}

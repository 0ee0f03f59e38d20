/*
 * Readers and writers (R22) on one name: the row w, which writers hold, a row of each reader, and a resource with two bars.
 * session.pml has what this one takes for granted: a write on a version, a session's death, and that nobody kills a session
 * whose holder still trusts it. So here a session may expire at any moment, and may be killed from then on.
 *
 * Who holds the lock acts without a look at its trust, as a process does that was paused between the look and the act. The
 * resource must keep it apart. A write may land once and be answered, land without an answer, land now and once more later, or
 * land later, or never, its outcome unknown. A process may crash in the middle of any of this.
 *
 * Each VARIANT_ breaks one rule. The model must hold without them and fail with any of them: see check.
 */
#ifndef READERS
#define READERS 1          /* processes that read, */
#endif
#ifndef WRITERS
#define WRITERS 1          /* and that write */
#endif
#ifndef LIVES
#define LIVES 2            /* sessions of a process, one after another: ids are never reused */
#endif
#ifndef ROUNDS
#define ROUNDS 2           /* attempts of a process to acquire */
#endif
#ifndef FAULTS
#define FAULTS 1           /* crashes, and writes that land late, twice or never, or lose their answer */
#endif
#define ACTS 2             /* of a holder on the resource */
#define PROCESSES (READERS + WRITERS)
#define SESSIONS (PROCESSES * LIVES)
#define NOBODY 255

mtype = { NEW, OVER, FREE };         /* writes: a create, one over a row, one that gives the row back */
mtype = { YES, NO, UNKNOWN };        /* their outcomes (S4) */

/* The store. Row 0 is w, row 1 + i that of reader i. Versions stay when a row goes (S3). */
#define W 0
#define ROWS (1 + READERS)
bool live[ROWS];
byte ver[ROWS];
byte owner[ROWS];                    /* the session that the row names */
bool alive[SESSIONS];                /* the session's row is there */
bool trusted[SESSIONS];              /* its holder may believe in it */
/* The resource's bars. */
byte mw;                             /* the greatest epoch of a writer that it has served */
byte mr;                             /* and of a reader */
/* Only the assertions read these. */
bool reads[PROCESSES], writes[PROCESSES]; /* granted and not yet given back */
byte under[PROCESSES];               /* the session of that grant */
bool served[PROCESSES];              /* the resource has served that grant, */
bool disturbed[PROCESSES];           /* and somebody since who must not be between */

bool ok;                             /* whether the write of the step in progress was applied */
byte faults;
chan late[FAULTS + 1] = [1] of { mtype, byte, byte, byte };

/* land is a write's arrival at row r. v is the version it is conditional on (S2), of NEW the one it makes. */
inline land(op, r, s, v) {
	ok = false;
	if
	:: op == NEW && !live[r] && ver[r] < v -> live[r] = true; ver[r] = v; owner[r] = s; ok = true
	:: op == OVER && live[r] && ver[r] == v -> ver[r]++; owner[r] = s; ok = true
	:: op == FREE && live[r] && ver[r] == v -> ok = true; owner[r] = NOBODY;
#ifdef VARIANT_W_IS_NOT_KEPT
		live[r] = false; ver[r]++
#else
		live[r] = (r == W); ver[r]++          /* w is kept: its version is the next reader's epoch */
#endif
	:: else
	fi
}

/* send is a write with its outcome in res, or the last thing that its process does. */
inline send(op, r, s, v) {
	atomic {
		if
		:: faults < FAULTS -> faults++; land(op, r, s, v); goto done
		:: land(op, r, s, v); res = (ok -> YES : NO)
		:: faults < FAULTS -> faults++; land(op, r, s, v); res = UNKNOWN
		:: faults < FAULTS -> late[faults]!op, r, s, v; faults++; res = UNKNOWN
		:: faults < FAULTS -> late[faults]!op, r, s, v; faults++; land(op, r, s, v); res = (ok -> YES : NO)
		fi
	}
}

/* Wire is where a late write is until it lands, or does not. */
proctype Wire(byte i) {
	mtype op; byte r, s, v;
end:	atomic {
		late[i]?op, r, s, v;
		if
		:: d_step { land(op, r, s, v) }
		:: skip
		fi;
		op = 0; r = 0; s = 0; v = 0     /* fewer states */
	}
}

/* contend is what a contender does to a session that it watches (R10): time passes until nobody may believe in it, and then it is
   killed. */
inline contend(s) {
	if
	:: atomic { trusted[s] -> trusted[s] = false }
	:: atomic { !trusted[s] -> alive[s] = false }
	fi
}

/* granted checks who else believes in the lock (I14, by time). */
inline granted(me, s, writing) {
	atomic {
		assert(trusted[s]);                                           /* I8 */
		q = 0;
		do
		:: q < PROCESSES ->
			assert(q == me || !trusted[under[q]] || !(writes[q] || (writing && reads[q])));
			q++
		:: else -> break
		od;
		q = 0;
		reads[me] = !writing; writes[me] = writing; under[me] = s; served[me] = false; disturbed[me] = false
	}
}

/* act is one use of the resource by a holder with epoch e (I14, by the bars). */
inline act(me, s, e, writing) {
	atomic {
		if
#if defined(VARIANT_ONE_BAR)
		:: e < mw -> assert(!trusted[s])
#elif defined(VARIANT_READERS_RAISE_NOTHING)
		:: e < mw -> assert(!trusted[s])
#elif defined(VARIANT_WRITER_AT_THE_READERS_BAR)
		:: e < mw || (writing && e < mr) -> assert(!trusted[s])
#else
		:: e < mw || (writing && e <= mr) -> assert(!trusted[s])      /* nobody who holds it is refused */
#endif
		:: else ->
			assert(!served[me] || !disturbed[me]);
			served[me] = true;
			q = 0;
			do
			:: q < PROCESSES ->
				disturbed[q] = disturbed[q] || (q != me && served[q] && (writing || writes[q]));
				q++
			:: else -> break
			od;
			q = 0;
			if
			:: writing -> mw = (e > mw -> e : mw)
#if defined(VARIANT_ONE_BAR)
			:: !writing -> mw = (e > mw -> e : mw)
#elif !defined(VARIANT_READERS_RAISE_NOTHING)
			:: !writing -> mr = (e > mr -> e : mr)
#else
			:: !writing
#endif
			fi
		fi
	}
}

/* returned: the holder has stopped. */
inline returned(me) {
	atomic { reads[me] = false; writes[me] = false; under[me] = 0; served[me] = false; disturbed[me] = false }
}

/* take writes row r for session s over whatever may be taken (R9), and v is its version. Where a live session o has the row, res is
   NO. A row that changes between the read and the write makes the write fail, as if it had not been sent: so they are one step. */
inline take(r, s) {
	res = UNKNOWN;
	do
	:: res == UNKNOWN ->
		if
		:: atomic { !live[r] -> v = ver[r] + 1; send(NEW, r, s, v); if :: res == UNKNOWN -> v = 0 :: else fi }
		:: atomic { live[r] && (owner[r] == NOBODY || owner[r] == s || !alive[owner[r]]) ->
			v = ver[r]; send(OVER, r, s, v); v++; if :: res == UNKNOWN -> v = 0 :: else fi }
		:: atomic { live[r] && owner[r] != NOBODY && owner[r] != s && alive[owner[r]] -> res = NO; o = owner[r]; break }
		fi
	:: res == YES -> break
	od
}

/* give gives row r back on version v, until that is known (R13). */
inline give(r, v) {
	send(FREE, r, 0, v);
	do
	:: res == UNKNOWN -> send(FREE, r, 0, v)
	:: res != UNKNOWN -> break
	od;
	res = 0
}

/* open is a session that is known to be there (R1, R8): session.pml has how that is known. */
inline open() {
	atomic {
		if
		:: lives == LIVES -> goto done
		:: else -> s = me * LIVES + lives; lives++; alive[s] = true; trusted[s] = true
		fi
	}
}

inline next() {
	if
	:: rounds == ROUNDS -> goto close
	:: rounds < ROUNDS -> rounds++
	fi
}

/* seen is who has row r, by a strong read. */
inline seen(r) { o = ((!live[r] || owner[r] == NOBODY) -> NOBODY : owner[r]); x = ver[r] }

proctype Reader(byte me) {
	mtype res;
	byte s, lives, rounds, acts;
	byte v, e, o, x, q;
	byte r = 1 + me;
lost:	open();
round:	next();
again:
#ifdef VARIANT_READER_LOOKS_FIRST
	atomic { seen(W); e = x; x = 0 };
	if
	:: o == NOBODY || !alive[o]
	:: o != NOBODY && alive[o] -> contend(o); goto again
	:: o != NOBODY && alive[o] -> goto round
	fi;
#endif
#ifdef VARIANT_EPOCH_OF_AN_EARLIER_LOOK
	atomic { seen(W); e = x; x = 0; o = 0 };
#endif
	take(r, s);
	if
	:: res == NO -> res = 0; contend(o); o = 0; goto again    /* its own lost session; it would take another row */
	:: res == YES -> res = 0
	fi;
#ifndef VARIANT_READER_LOOKS_FIRST
	/* It has written. Now it looks. */
	atomic {
		seen(W);
#ifdef VARIANT_W_IS_NOT_KEPT
		x = (live[W] -> x : 0);
#endif
#ifndef VARIANT_EPOCH_OF_AN_EARLIER_LOOK
		e = x;
#endif
		x = 0
	};
	if
	:: o == NOBODY || !alive[o] -> o = 0
#ifdef VARIANT_READER_TAKES_A_WRITER_FOR_DEAD
	:: o != NOBODY -> o = 0
#endif
	:: o != NOBODY && alive[o] ->
		give(r, v); v = 0;
		do                                                /* it waits for w, or gives up */
		:: alive[o] -> contend(o)
		:: o = 0; goto round
		od
	fi;
#endif
#ifdef VARIANT_READER_IS_NOT_CHECKED_AFTER_THE_LOOK
	granted(me, s, false);
#else
	if
	:: atomic { trusted[s] -> granted(me, s, false) }
	:: atomic { trusted[s] = false; e = 0; v = 0; goto lost }
	fi;
#endif
	do
	:: acts < ACTS -> acts++; act(me, s, e, false)
	:: atomic { faults < FAULTS -> faults++; goto done }
	:: atomic { returned(me); acts = 0; e = 0; break }
	od;
	if
	:: give(r, v); v = 0; goto round
	:: atomic { trusted[s] = false; v = 0; goto lost }
	fi;
close:	atomic { trusted[s] = false; alive[s] = false }
done:	skip
}

proctype Writer(byte me) {
	mtype res;
	byte s, lives, rounds, acts;
	byte v, o, x, q, i;
lost:	open();
round:	next();
again:
#ifdef VARIANT_WRITER_LISTS_FIRST
	i = 0;
	do
	:: i < READERS ->
		atomic { seen(1 + i); x = 0 };
		if
		:: o == NOBODY || !alive[o] -> i++
		:: o != NOBODY && alive[o] -> contend(o)
		:: o != NOBODY && alive[o] -> goto round
		fi
	:: i == READERS -> break
	od;
#endif
	take(W, s);
	if
	:: res == NO -> res = 0;
		if
		:: contend(o); o = 0; goto again
		:: atomic { o = 0; goto round }
		fi
	:: res == YES -> res = 0
	fi;
list:	/* It has written. Now it lists. The rows are read one after the other: a listing is no snapshot. */
#ifndef VARIANT_WRITER_LISTS_FIRST
	i = 0;
	do
	:: i < READERS ->
		atomic { seen(1 + i) };
		if
		:: o == NOBODY -> i++
		:: o != NOBODY && !alive[o] -> send(FREE, 1 + i, 0, x); res = 0; i++
#ifdef VARIANT_WRITER_TAKES_A_READER_FOR_DEAD
		:: o != NOBODY && alive[o] -> send(FREE, 1 + i, 0, x); res = 0; i++
#endif
		:: o != NOBODY && alive[o] -> contend(o)
		:: atomic { o != NOBODY && alive[o] -> i = 0; o = 0; x = 0 }   /* it gives up: w is free, or another's of its process */
			if
			:: give(W, v); v = 0; goto round
			:: next(); send(OVER, W, s, v);
				if
				:: res == YES -> res = 0; v++;
#ifdef VARIANT_HANDED_OVER_WITHOUT_A_LISTING
					goto check
#else
					goto list
#endif
				:: res != YES -> res = 0; v = 0; goto round
				fi
			fi
		fi;
		atomic { o = 0; x = 0 }
	:: atomic { i == READERS -> i = 0; break }
	od;
#endif
check:
#ifdef VARIANT_WRITER_IS_NOT_CHECKED_AFTER_THE_LISTING
	granted(me, s, true);
#else
	if
	:: atomic { trusted[s] -> granted(me, s, true) }
	:: atomic { trusted[s] = false; v = 0; goto lost }
	fi;
#endif
	do
	:: acts < ACTS -> acts++; act(me, s, v, true)
	:: atomic { faults < FAULTS -> faults++; goto done }
	:: atomic { returned(me); acts = 0; break }
	od;
	if
	:: give(W, v); v = 0; goto round
	:: atomic { trusted[s] = false; v = 0; goto lost }
	fi;
close:	atomic { trusted[s] = false; alive[s] = false }
done:	skip
}

init {
	byte i;
	atomic {
		live[W] = true; ver[W] = 1; owner[W] = NOBODY;
		i = 0;
		do :: i < FAULTS -> run Wire(i); i++ :: else -> break od;
		i = 0;
		do :: i < READERS -> run Reader(i); i++ :: else -> break od;
		do :: i < PROCESSES -> run Writer(i); i++ :: else -> break od
	}
}

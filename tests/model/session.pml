/*
 * The session protocol on one key: sessions that are killed, leases that name them, fencing tokens. The rules (R1 ...), the
 * store's promises (S2, S3) and the invariants (I1 ...) have the numbers that package lease's comments quote.
 *
 * It is untimed: who has observed a session may kill it at any moment after, and a holder goes on until it finds out. So what
 * is proven rests on no clock; who believes what for how long is the simulation's business. A write may land once and
 * be answered, land without an answer, land now and once more later, or land later, or never, its outcome unknown.
 *
 * Each VARIANT_ breaks one rule. The model must hold without them and fail with any of them: see check.
 */
#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef LIVES
#define LIVES 2            /* sessions of a client, one after another: ids are never reused */
#endif
#ifndef ROUNDS
#define ROUNDS 1           /* acquisitions of a client */
#endif
#ifndef FAULTS
#define FAULTS 1           /* writes that land late, twice or never, or lose their answer */
#endif
#define BEATS 1            /* heartbeats of a session after it was opened */
#define SESSIONS (CLIENTS * LIVES)

mtype = { OPEN, BEAT, KILL, CREATE, TAKE, FREE };  /* writes */
mtype = { YES, NO, UNKNOWN };                      /* their outcomes (S4) */

/* The store: the rows of the sessions, and the key's row. Versions stay when a row goes (S3). */
bool alive[SESSIONS];
byte sver[SESSIONS];
bool live;
byte lver;
byte owner;                /* the session that the key's row names */
byte racq;                 /* and the acquisition */
/* The resource. */
byte highest;              /* the greatest token it has accepted */
/* Only the assertions read these. */
bool killed[SESSIONS];
byte granted;              /* the last token */
byte accepted;             /* the greatest token the resource let through */

bool ok;                   /* whether the write of the step in progress was applied */
byte faults;
chan late[FAULTS] = [1] of { mtype, byte, byte, byte };

/* grant writes the key's row for acquisition a of session s. Tokens only grow (I2). */
inline grant(s, a, v) {
	assert(v > granted);
	granted = v; lver = v; live = true; owner = s; racq = a; ok = true
}

/* land is a write's arrival at the store. v is the version it is conditional on (S2), of OPEN and CREATE the one it makes. */
inline land(op, s, a, v) {
	ok = false;
	if
#ifdef VARIANT_CREATE_APPLIES_TWICE
	:: op == OPEN && !alive[s]
#else
	:: op == OPEN && !alive[s] && sver[s] < v           /* S3: at most once, however late */
#endif
		-> assert(!killed[s]);                      /* I11 */
		alive[s] = true; sver[s] = v; ok = true
#ifdef VARIANT_HEARTBEAT_WITHOUT_VERSION
	:: op == BEAT
#else
	:: op == BEAT && alive[s] && sver[s] == v           /* R2 */
#endif
		-> assert(!killed[s]);                      /* I11: kill is terminal (R10) */
		alive[s] = true; sver[s]++; ok = true
#ifdef VARIANT_KILL_WITHOUT_VERSION
	:: op == KILL && alive[s]
#else
	:: op == KILL && alive[s] && sver[s] == v           /* R10 */
#endif
		-> assert(sver[s] == v);                    /* it has not beaten since it was observed */
		alive[s] = false; killed[s] = true; sver[s]++; ok = true
#ifdef VARIANT_CREATE_APPLIES_TWICE
	:: op == CREATE && !live
#else
	:: op == CREATE && !live && lver < v                /* S3 */
#endif
		-> grant(s, a, v)
#ifdef VARIANT_TAKEOVER_WITHOUT_VERSION
	:: op == TAKE
#else
	:: op == TAKE && live && lver == v                  /* R9.2: exactly one contender wins */
#endif
		-> assert(!live || owner == s || !alive[owner]);  /* I4 */
		grant(s, a, lver + 1)
#ifdef VARIANT_RELEASE_WITHOUT_VERSION
	:: op == FREE && live
#else
	:: op == FREE && live && lver == v                  /* R13 */
#endif
		-> assert(racq == a || !alive[owner]);      /* I4 */
		live = false; ok = true;
#ifdef VARIANT_VERSIONS_RESTART_ON_DELETE
		lver = 0
#else
		lver++                                      /* S3: the tombstone's */
#endif
	:: else
	fi
}

/* send is a write with its outcome in res. */
inline send(op, s, a, v) {
	atomic {
		if
		:: land(op, s, a, v); res = (ok -> YES : NO)
		:: faults < FAULTS -> faults++; land(op, s, a, v); res = UNKNOWN
		:: faults < FAULTS -> late[faults]!op, s, a, v; faults++; res = UNKNOWN
		:: faults < FAULTS -> late[faults]!op, s, a, v; faults++; land(op, s, a, v); res = (ok -> YES : NO)
		fi
	}
}

/* Wire is where a late write is until it lands, or does not. */
proctype Wire(byte i) {
	mtype op; byte s, a, v;
end:	atomic {
		late[i]?op, s, a, v;
		if
		:: d_step { land(op, s, a, v) }
		:: skip
		fi;
		op = 0; s = 0; a = 0; v = 0     /* fewer states */
	}
}

proctype Client(byte me) {
	mtype res;
	byte s, lives, rounds, beats;
	byte acq = me;     /* never reused: me, me + CLIENTS, ... */
	byte token, v, o, w;
#ifdef VARIANT_DEATH_FROM_AN_OLDER_READ
	bool absent[SESSIONS];
	d_step { w = 0; do :: w < SESSIONS -> absent[w] = !alive[w]; w++ :: else -> break od; w = 0 }
#endif

open:	/* R1: a session is used only if it is known to be there; else its id is thrown away. R8: so it is after a loss. */
	if
	:: lives == LIVES -> goto done
	:: else -> s = me + CLIENTS * lives; lives++; beats = 0
	fi;
	send(OPEN, s, 0, 1);
	if
	:: res == YES
	:: else -> goto open
	fi;
	res = 0;

acquire: /* R9. Nothing is enabled for who can only wait: there is no deadlock if that does not last for ever. */
	if
	:: rounds == ROUNDS -> goto close
	:: else -> rounds++; acq = acq + CLIENTS
	fi;
again:	if
	:: atomic { !live -> v = lver + 1 }
		send(CREATE, s, acq, v)
#ifndef VARIANT_OWN_ORPHAN_NOT_RECOGNIZED
	:: atomic { live && owner == s -> v = lver }            /* R9.2, R14: a write of unknown outcome has landed */
		send(TAKE, s, acq, v); v++
#endif
	:: atomic { live && owner != s -> v = lver; o = owner }
		if
#if defined(VARIANT_STEAL_WITHOUT_KILL)
		:: true ->
#elif defined(VARIANT_DEATH_FROM_AN_OLDER_READ)
		:: !alive[o] || absent[o] ->
#else
		:: !alive[o] ->                                 /* R10: dead, by a read after the row's */
#endif
			send(TAKE, s, acq, v); v++
		:: atomic { alive[o] -> w = sver[o] }           /* R10, R11: an observation; any time after, the kill */
			send(KILL, o, 0, w); res = NO
		fi
	fi;
	atomic {
		o = 0; w = 0;
		if
		:: res == YES -> token = v; v = 0; res = 0
		:: res == UNKNOWN -> acq = acq + CLIENTS; v = 0; res = 0; goto again
		:: res == NO -> v = 0; res = 0; goto again
		fi
	}
	do	/* it holds the key, or has lost it and does not know */
	:: d_step {
#ifdef VARIANT_RESOURCE_IGNORES_TOKENS
		if
		:: true
#else
		if
		:: token < highest -> assert(!live || racq != acq || !alive[owner])  /* nobody who holds it is refused */
		:: else
#endif
			-> assert(token >= accepted);                             /* I1 */
			accepted = token; highest = token
		fi }
	:: beats < BEATS -> beats++; w = sver[s]; send(BEAT, s, 0, w);
		atomic { w = 0; res = 0;
			if
			:: alive[s]                            /* its beat, or nobody's */
			:: !alive[s] -> token = 0; goto open   /* R2: proof of death; the lease is lost */
			fi }
	:: send(FREE, 0, acq, token);  /* R13: it does not act any more; unknown: again, until it is known */
		do
		:: res == UNKNOWN -> send(FREE, 0, acq, token)
		:: res != UNKNOWN -> break
		od;
		atomic { token = 0; res = 0; goto acquire }
	od;

close:	do	/* R16: the session's end frees whatever late writes may leave */
	:: atomic { alive[s] -> w = sver[s] } send(KILL, s, 0, w)
	:: !alive[s] -> break
	od;
done:	skip
}

init {
	byte i;
	atomic {
		do :: i < FAULTS -> run Wire(i); i++ :: else -> break od;
		i = 0;
		do :: i < CLIENTS -> run Client(i); i++ :: else -> break od
	}
}

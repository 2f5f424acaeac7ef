/*
 * One workset, its lease, its attempts, and the daemons that want it.
 *
 * The item in DynamoDB carries a version (grows with every write), a fence (grows with every claim)
 * and a beat. Conditions on them are equalities, and the numbers never come back, so the model keeps
 * no numbers: beside every snapshot stands one bit, "the item was not written since" (`cur`) or "was
 * not claimed since" (`fok`). That makes the state space finite without a bound on heartbeats,
 * claims, crashes or restarts.
 *
 * A daemon is a set of atomic steps that interleave freely. A request stays in `op` until its answer
 * came; it may arrive more than once (its answer got lost and it is repeated under the same nonce)
 * or, when its sender died or let go, at any later time (`late`). What a daemon knows is its view
 * (`vphase`, `vatt`, `vasked`), which may be out of date whenever `cur` is false.
 *
 * Time is in three bits. `trusted`: the holder's trust (time before the request + TTL - margin) still
 * runs. `watch`: a contender has seen this beat (1), for a whole TTL (2). `aged`: the TTL has run out
 * over a claim that was applied but not answered. The only rule between them is the one the margin
 * buys: 2 is reached only after the trust ended.
 *
 * Variants and mutants are chosen by -D; see README.md.
 */

#ifndef N
#define N 2                     /* daemons */
#endif
#define A 2                     /* attempts */
#define NOBODY N

#ifdef PAUSE                    /* stopped between looking at its trust and acting (SIGSTOP) */
#define may_act(d) (D[d].hold && D[d].op == NONE)
#else
#define may_act(d) (D[d].hold && D[d].op == NONE && D[d].trusted)
#endif

#ifdef LIVE                     /* a quiet phase without faults may begin at any time */
bool quiet = false;
bool alone = false;             /* in it, daemon 0 is the only one left */
#define FAULTY (!quiet)
#define alive(d) (!alone || (d) == 0)
#else
#define FAULTY true
#define alive(d) true
#endif

mtype:phase = { ABSENT, READY, RUNNING, GIVING_UP, CANCELING, COMPLETE, FAILED, CANCELED }
mtype:op = { NONE, CLAIM, RELEASE, START, EXIT_0, EXIT_1, ENDED_LOST, GIVE_UP, NEXT, STOP, STOPPED,
             CANCEL_NOW, RESTART }
mtype:token = { FREE, STARTED, REVOKED }
mtype:job = { NOT_SEEN, LIVE, LEFT_0, LEFT_1, LOST, KILLED }
mtype:msg = { UNSENT, QUEUED, IN_FLIGHT, DELETED }

/* ---- the item ---- */
mtype:phase phase = ABSENT;
byte att = 0;
byte owner = NOBODY;
bool asked = false;             /* a cancel lies in the inbox */
bool seen = false;              /* the cancel's command id is among the seen ones */
#define final (phase == COMPLETE || phase == FAILED || phase == CANCELED)

/* ---- the attempts: token, job, launch requests on their way; index 0 is not used ---- */
mtype:token token[A + 1] = FREE;
mtype:job job[A + 1] = NOT_SEEN;
byte flying[A + 1] = 0;
bool recorded[A + 1] = false;
byte live = 0;
#define proof(a) (job[a] == LEFT_0 || job[a] == LEFT_1 || job[a] == LOST || job[a] == KILLED)
#define gone(a) (token[a] == REVOKED || proof(a))

/* ---- the doorbell's messages: FIFO, the cancel behind the submit ---- */
#define SUBMIT 1
#define CANCEL 2
mtype:msg msg[3] = UNSENT;
byte receiver[3] = NOBODY;      /* whose receipt handle is the valid one */
#define durable(m) ((m) == SUBMIT && phase != ABSENT || (m) == CANCEL && seen)

typedef Daemon {
  bool hold, trusted;
  bool cur, fok;
  mtype:phase vphase = ABSENT;
  byte vatt;
  bool vasked;
  mtype:op op = NONE;
  bool mine;                    /* the nonce in the item is this request's */
  bool aged;
  byte watch;
  byte hand;                    /* the message in the doorbell's hand */
  mtype:op late = NONE;         /* a request that nobody waits for any more */
  bool late_cur, late_fok;
}
Daemon D[N];

hidden byte j, k;
hidden byte held_submit, held_cancel;

/* ---- writing the item ---- */

inline wrote() {                /* version + 1 */
  for (k : 0 .. N - 1) {
    D[k].cur = false; D[k].mine = false; D[k].watch = 0; D[k].late_cur = false
  }
}

inline claimed(d) {             /* fence + 1 */
  for (k : 0 .. N - 1) { D[k].fok = false; D[k].late_fok = false }
  owner = d
}

inline record(a) {              /* an end of attempt a enters the item */
  assert(!recorded[a]);         /* once */
  recorded[a] = true
}

inline settle(p) { phase = p; owner = NOBODY }

inline next_attempt() {         /* after a failure that may be retried, or after giving up */
  if
  :: asked -> assert(gone(att)); settle(CANCELED)
  :: !asked && att < A -> assert(gone(att)); att++; phase = RUNNING
  :: !asked && att == A -> assert(proof(att)); settle(FAILED)
  fi
}

inline apply(o, d) {
  if
  :: o == CLAIM -> claimed(d)
  :: o == RELEASE -> owner = NOBODY
  :: o == START -> assert(!asked && att == 0); att = 1; phase = RUNNING
  :: o == EXIT_0 -> assert(job[att] == LEFT_0); record(att); settle(COMPLETE)
  :: o == EXIT_1 -> assert(job[att] == LEFT_1); record(att); next_attempt()
  :: o == ENDED_LOST -> assert(job[att] == LOST); record(att); next_attempt()
  :: o == GIVE_UP -> phase = GIVING_UP
  :: o == NEXT -> next_attempt()
  :: o == STOP -> phase = CANCELING
  :: o == STOPPED -> assert(gone(att)); settle(CANCELED)
  :: o == CANCEL_NOW -> settle(CANCELED)
#ifdef NO_NONCE
  :: o == RESTART -> next_attempt()
#endif
  fi;
  assert(phase != CANCELED || asked || o == CLAIM);
  wrote()
}

/* ---- what a daemon knows ---- */

inline look(d) {
  D[d].vphase = phase; D[d].vatt = att; D[d].vasked = asked; D[d].cur = true
}

inline let_go(d) {
  D[d].hold = false; D[d].trusted = false; D[d].cur = false; D[d].fok = false;
  D[d].vphase = ABSENT; D[d].vatt = 0; D[d].vasked = false;
  D[d].op = NONE; D[d].mine = false; D[d].aged = false
}

inline leave_behind(d) {        /* the request in flight may still arrive */
  if
  :: D[d].op != NONE -> D[d].late = D[d].op; D[d].late_cur = D[d].cur; D[d].late_fok = D[d].fok
  :: else
  fi
}

inline ask(d, o) { D[d].op = o; D[d].vphase = ABSENT; D[d].vatt = 0 }

inline nobody_else_trusts(d) {
  for (k : 0 .. N - 1) { assert(k == d || !D[k].trusted) }
}

inline answered(d) {            /* applied, as far as the sender can tell */
  if
  :: D[d].op == CLAIM && D[d].aged -> let_go(d)
  :: D[d].op == CLAIM && !D[d].aged ->
       nobody_else_trusts(d);
       D[d].hold = true; D[d].trusted = true; D[d].op = NONE; D[d].mine = false; look(d)
  :: D[d].op == RELEASE -> let_go(d)
  :: D[d].op != CLAIM && D[d].op != RELEASE && final -> let_go(d)
  :: D[d].op != CLAIM && D[d].op != RELEASE && !final ->
       D[d].op = NONE; D[d].mine = false; look(d)
  fi
}

/* The condition of an owner's write is version and fence; the version alone refuses a stale owner
   too, but only until it looks again. A claim's is the version, and with it the beat. */
#ifdef NO_FENCE
#define condition(d) (D[d].cur)
#define fenced(d) false
#define late_condition(d) (D[d].late_cur)
#else
#ifdef NO_VERSION
#define condition(d) (D[d].op == CLAIM && D[d].cur || D[d].op != CLAIM && D[d].fok)
#else
#define condition(d) (D[d].cur && (D[d].op == CLAIM || D[d].fok))
#endif
#define fenced(d) (!D[d].fok)
#define late_condition(d) (D[d].late_cur && (D[d].late == CLAIM || D[d].late_fok))
#endif

inline refused(d) {             /* the item is another one: what does it say? */
  if
#ifdef NO_NONCE
  :: D[d].mine && D[d].op != CLAIM && !final && phase == RUNNING && att < A ->
       look(d); ask(d, RESTART)
  :: D[d].mine && !(D[d].op != CLAIM && !final && phase == RUNNING && att < A) -> let_go(d)
#else
  :: D[d].mine -> answered(d)
#endif
  :: !D[d].mine && (D[d].op == CLAIM || fenced(d) || final) -> let_go(d)
  :: !D[d].mine && D[d].op != CLAIM && !fenced(d) && !final ->
       look(d);
#ifdef EVENT_WITHOUT_NAME
       if                       /* the same event again, to whatever attempt is found */
       :: D[d].op == EXIT_1 && phase == RUNNING -> D[d].vphase = ABSENT; D[d].vatt = 0
       :: else -> D[d].op = NONE
       fi
#else
       D[d].op = NONE           /* decide again; events name their attempt */
#endif
  fi
}

inline arrive(d) {              /* the answer comes back, or is lost and the request repeated */
  apply(D[d].op, d);
  if
  :: D[d].op == CLAIM -> D[d].fok = true
  :: else
  fi;
  D[d].mine = true
}

inline arrive_late(d) {
  if
  :: late_condition(d) -> assert(D[d].late == CLAIM || D[d].late_fok); apply(D[d].late, d)
  :: else
  fi;
  D[d].late = NONE; D[d].late_fok = false
}

inline timely(d) {              /* without pauses, only the owner of the item acts */
#ifndef PAUSE
  assert(D[d].fok)
#else
  skip
#endif
}

inline nothing_lost() {         /* a deleted message is in the item, or in a living hand */
  for (k : 0 .. N - 1) {
    if
    :: D[k].hand == SUBMIT -> held_submit = true
    :: D[k].hand == CANCEL -> held_cancel = true
    :: else
    fi
  };
  assert(msg[SUBMIT] != DELETED || phase != ABSENT || held_submit);
  assert(msg[CANCEL] != DELETED || seen || held_cancel);
  held_submit = false; held_cancel = false
}

inline crash(d) {
  leave_behind(d); let_go(d); D[d].hand = 0; D[d].watch = 0; nothing_lost()
}

/* ---- one daemon ---- */

proctype Steps(byte d) {
end:
  do
  /* doorbell: take the message, make it durable, delete it */
  :: atomic { alive(d) && D[d].hand == 0 && msg[SUBMIT] == QUEUED ->
       D[d].hand = SUBMIT; msg[SUBMIT] = IN_FLIGHT; receiver[SUBMIT] = d;
#ifdef ACK_BEFORE_COMMIT
       msg[SUBMIT] = DELETED; receiver[SUBMIT] = NOBODY
#endif
     }
  :: atomic { alive(d) && D[d].hand == 0 && msg[SUBMIT] == DELETED && msg[CANCEL] == QUEUED ->
       D[d].hand = CANCEL; msg[CANCEL] = IN_FLIGHT; receiver[CANCEL] = d;
#ifdef ACK_BEFORE_COMMIT
       msg[CANCEL] = DELETED; receiver[CANCEL] = NOBODY
#endif
     }
  :: d_step { alive(d) && D[d].hand == SUBMIT && phase == ABSENT -> phase = READY; wrote() }
  :: d_step { alive(d) && D[d].hand == CANCEL && !seen ->
       seen = true;
       if
       :: final || phase == ABSENT || phase == CANCELING
       :: phase == READY && owner == NOBODY -> asked = true; phase = CANCELED
       :: else -> asked = true
       fi;
       wrote() }
  :: d_step { alive(d) && D[d].hand != 0 && durable(D[d].hand) ->
       if                       /* a delete by an old receipt handle does nothing */
       :: receiver[D[d].hand] == d -> msg[D[d].hand] = DELETED; receiver[D[d].hand] = NOBODY
       :: else
       fi;
       D[d].hand = 0 }

  /* contender: free, left behind by a former self (the flock proves it dead), or watched for a TTL */
  :: d_step { alive(d) && !D[d].hold && D[d].op == NONE && D[d].watch == 0
              && owner != NOBODY && owner != d && !final -> D[d].watch = 1 }
#ifndef NO_TAKEOVER
#ifdef TRUST_UNBOUNDED
  :: d_step { alive(d) && D[d].watch == 1 ->
#else
  :: d_step { alive(d) && D[d].watch == 1 && !D[owner].trusted ->
#endif
       D[d].watch = 2;
#ifndef TRUST_FROM_ANSWER
       D[owner].aged = (D[owner].op == CLAIM && D[owner].mine)
#endif
     }
#endif
  :: d_step { alive(d) && !D[d].hold && D[d].op == NONE && phase != ABSENT && !final
              && (owner == NOBODY || owner == d || D[d].watch == 2) ->
       D[d].watch = 0; D[d].cur = true; ask(d, CLAIM) }

  /* holder: the heartbeat, which returns the item, and the end of trust */
  :: d_step { D[d].hold && D[d].trusted && D[d].fok && alive(d)
              && (FAULTY || !D[d].cur && D[d].op == NONE) ->
       wrote();
       if
       :: D[d].op == NONE -> look(d)
       :: else                  /* the pending request has lost version and nonce to the beat */
       fi }
#ifndef TRUST_UNBOUNDED
  :: d_step { FAULTY && D[d].hold && D[d].trusted ->
       D[d].trusted = false;
#ifndef PAUSE
       leave_behind(d); let_go(d)
#endif
     }
#endif
#ifdef PAUSE
  :: d_step { alive(d) && D[d].hold && !D[d].trusted -> leave_behind(d); let_go(d) }
#endif

  /* holder: decide on the view, ask for the write */
  :: d_step { may_act(d) && D[d].vphase == READY ->
       if
       :: D[d].vasked -> ask(d, CANCEL_NOW)
       :: else -> ask(d, START)
       fi }
  :: d_step { may_act(d) && (D[d].vphase == RUNNING || D[d].vphase == GIVING_UP) && D[d].vasked ->
       ask(d, STOP) }
  :: d_step { may_act(d) && (D[d].vphase == RUNNING || D[d].vphase == GIVING_UP) && !D[d].vasked
              && proof(D[d].vatt) && job[D[d].vatt] != KILLED ->
       if
       :: job[D[d].vatt] == LEFT_0 -> ask(d, EXIT_0)
       :: job[D[d].vatt] == LEFT_1 -> ask(d, EXIT_1)
       :: job[D[d].vatt] == LOST -> ask(d, ENDED_LOST)
       fi }
#ifdef UNKNOWN_IS_FAILED
  :: d_step { may_act(d) && D[d].vphase == RUNNING && !proof(D[d].vatt) -> ask(d, EXIT_1) }
#endif
  :: d_step { may_act(d) && D[d].vphase == RUNNING && !D[d].vasked && D[d].vatt < A
              && token[D[d].vatt] == FREE -> ask(d, GIVE_UP) }
#ifdef NO_REVOKE                /* it looked, and nothing was there */
#define stopped(a) (gone(a) || job[a] == NOT_SEEN)
#else
#define stopped(a) gone(a)
#endif
  :: d_step { may_act(d) && D[d].vphase == GIVING_UP && !D[d].vasked
              && !proof(D[d].vatt) && stopped(D[d].vatt) -> ask(d, NEXT) }
  :: d_step { may_act(d) && D[d].vphase == CANCELING && stopped(D[d].vatt) -> ask(d, STOPPED) }
  :: d_step { FAULTY && may_act(d) -> ask(d, RELEASE) }

  /* holder: effects, none of which a database can refuse */
#ifdef ACT_BEFORE_PERSIST
  :: d_step { may_act(d) && D[d].vphase == READY && flying[1] == 0 -> flying[1]++ }
#endif
  :: d_step { may_act(d) && D[d].vphase == RUNNING && token[D[d].vatt] == FREE
              && flying[D[d].vatt] < (FAULTY -> 2 : 1) ->
       timely(d); flying[D[d].vatt]++ }
#ifndef NO_REVOKE
  :: d_step { may_act(d) && (D[d].vphase == GIVING_UP || D[d].vphase == CANCELING)
              && token[D[d].vatt] == FREE -> timely(d); token[D[d].vatt] = REVOKED }
#endif
  :: d_step { may_act(d) && D[d].vphase == CANCELING && job[D[d].vatt] == LIVE ->
       timely(d); job[D[d].vatt] = KILLED; live-- }

  /* network */
  :: atomic { alive(d) && D[d].op != NONE ->
       if
       :: condition(d) ->
            assert(D[d].op == CLAIM || D[d].fok);       /* a stale fence writes nothing */
            d_step { arrive(d) };
            if
            :: answered(d)
            :: FAULTY -> skip
            fi
       :: else -> refused(d)
       fi }
  :: d_step { D[d].late != NONE -> arrive_late(d) }
  :: d_step { D[d].late != NONE -> D[d].late = NONE; D[d].late_cur = false; D[d].late_fok = false }

  /* kill -9, and a start from nothing */
  :: d_step { FAULTY && (D[d].hold || D[d].op != NONE || D[d].hand != 0) -> crash(d) }
  od
}

/* ---- Slurm, systemd, and the shim; queue, people and faults ---- */

proctype Attempt(byte a) {
end:
  do
  :: d_step { flying[a] > 0 ->  /* however late; the shim wins free -> started, or exits 75 */
       flying[a]--;
       if
#ifdef NO_TOKEN
       :: true ->
#else
       :: token[a] == FREE ->
#endif
            assert(!final && att == a && live == 0);
            token[a] = STARTED; job[a] = LIVE; live++
#ifndef NO_TOKEN
       :: else
#endif
       fi }
  :: d_step { FAULTY && flying[a] > 0 -> flying[a]-- }
  :: d_step { job[a] == LIVE -> job[a] = LEFT_0; live-- }
  :: d_step { job[a] == LIVE -> job[a] = LEFT_1; live-- }
  :: d_step { job[a] == LIVE -> job[a] = LOST; live-- }
  od
}

#define orphaned(m) (receiver[m] == NOBODY || D[receiver[m]].hand != (m))

proctype World() {
end:
  do
  :: d_step { FAULTY && msg[CANCEL] == UNSENT -> msg[CANCEL] = QUEUED }
  :: d_step { msg[SUBMIT] == IN_FLIGHT && (FAULTY || orphaned(SUBMIT)) ->
       msg[SUBMIT] = QUEUED; receiver[SUBMIT] = NOBODY }
  :: d_step { msg[CANCEL] == IN_FLIGHT && (FAULTY || orphaned(CANCEL)) ->
       msg[CANCEL] = QUEUED; receiver[CANCEL] = NOBODY }
#ifdef LIVE
  :: d_step { !quiet -> quiet = true }
  :: d_step { !quiet -> quiet = true; alone = true;
       for (j : 1 .. N - 1) { crash(j) } }
#endif
  od
}

init {
  atomic {
    msg[SUBMIT] = QUEUED;
    for (j : 0 .. N - 1) { run Steps(j) };
    for (j : 1 .. A) { run Attempt(j) };
    run World()
  }
}

#ifdef LIVE
#define settled (final && msg[SUBMIT] == DELETED && (msg[CANCEL] == UNSENT || msg[CANCEL] == DELETED))
ltl never_lost { [] (quiet -> <> settled) }
#endif

"""The limits of what operates the agent, and of what an operator reads of it.

The service manager, the command, backups, installing. Units stand in the names. All are imported from limits.py.
"""

# --- granted against used ------------------------------------------------------------------------------------------
USAGE_KEEP_DAYS = 400  # that daily sums are kept: a year, and the month in which it is asked about
USAGE_KEEP_DAYS_LEAST = 30  # that an operator may set: of fewer days nothing is concluded
USAGE_KEYS_A_DAY = 20_000  # actions of types and workloads, of some 100 bytes each: what is more is counted as others
USAGE_KEYS_AT_HAND = 50_000  # that the writer knows by heart: 15 MB
USAGE_ROWS_AT_ONCE = 5_000  # sums that are pruned in one write, which others wait for
USAGE_RECORDS_AT_ONCE = 500  # of the journal, that are counted again before others have a turn: 5 ms
USAGE_LOOK_SECONDS = 1.0  # between two writes of sums, each of which costs as much as a few exchanges
USAGE_AGAIN_SECONDS = 30.0  # after one that failed: what stands in the journal is not forgotten meanwhile
USAGE_DAYS_ENOUGH, USAGE_TASKS_ENOUGH = 30, 20  # below which what was not used is no evidence yet
USAGE_DAYS = 90  # that a report is of, if nobody says
USAGE_REPORTS = 2  # of one operator's uid at once
USAGE_ROWS_A_MESSAGE = 1_000  # of actions

# --- the service manager --------------------------------------------------------------------------------------------
SERVICE_MESSAGES_WAITING = 64  # for a systemd that is busy: each but the last few is out of date by then
SERVICE_STATUS_SECONDS = 10.0  # between two looks at what the one line of status says
START_SECONDS = (
    60.0  # that a start may take whatever the size of its database, before systemd takes it for a failed one
)
START_BYTES_PER_SECOND = 8 * 1024 * 1024  # of the database beside: what a migration copies of it, on a slow disk
RESTART_AWAITED_SECONDS = 5.0  # by the command, for the next agent: systemd starts one within a second

# --- what operators are shown ---------------------------------------------------------------------------------------
LISTED_AT_ONCE = 2_000  # things that are looked through for a page, at about 1 us each, before others have a turn
PAGE_ITEMS = 200  # of a list in one answer: ten milliseconds and less, however many there are
PAGE_BYTES = 256 * 1024  # of one answer, a sixteenth of what clients take; one thing alone may have more
PAGE_TOKEN_MAX = 16 * 1024  # characters: two SPIFFE IDs and a name, in base64
LISTED_TEXT = 200  # characters of a workload's text in a list; one thing alone is shown whole
OUTCOMES_TOLD = 500  # of a change of many tasks; the rest is counted
STATUS_OWNERS = 20  # in a status, of whose the live tasks are: those with the most
STATUS_ROWS = 100  # of streams and of SVIDs in a status; lists of them have all
FAILURES_KEPT = 100  # kinds and subjects, for `sojourn status`
FAILURE_TEXT_MAX = 500  # characters
DISK_FAIL_BYTES = 64 * 2**20  # free, below which `sojourn doctor` says that the data folder's disk is full
DISK_WARN_BYTES, DISK_WARN_SHARE = 2**30, 0.1  # free, below both of which it says that it will be

# --- backups, and what notices that a data folder was put back -----------------------------------------------------
COPY_PAGES = 1_024  # of a database, 4 MiB, that are copied at once
COPY_PAUSE_SECONDS = 0.002  # between them: the disk and the processor are the agent's, too
COPIES_BEFORE_MIGRATIONS = 3  # of the database, that are kept
PASSPHRASE_LEAST = 12  # characters of a backup's: it holds the root key, and whoever has the file may guess for ever
BACKUP_SCRYPT_N = 1 << 17  # 128 MiB and a third of a second for each guess
BACKUP_SCRYPT_N_MAX = 1 << 20  # that a backup may ask of who opens it: 1 GiB
BACKUP_CHUNK_BYTES = 1024 * 1024  # sealed at once
BACKUP_MANIFEST_BYTES = 64 * 1024  # the line that says what a backup is of
BACKUP_LOOK_SECONDS = 10.0  # after which the agent knows of a backup that was made beside it
RESTORE_EPOCHS_AHEAD = 1_000  # starts that may have been since a backup, of which nothing else tells
# The number of a start that knows of none before, though there were some: so many minutes since 2024, within bounds.
LOST_EPOCHS_SINCE, LOST_EPOCH_SECONDS = 1_704_067_200, 60
LOST_EPOCHS = (1 << 20, 3 << 22)  # the most leaves a quarter of what stamps of SVIDs have room for
MARK_MAX_BYTES = 4_096
MARK_SECONDS = 0.5  # after something is recorded, until the mark follows
MARK_IDLE_SECONDS = 10.0  # after which it is looked at though nothing was recorded
MARK_LOOKS, MARK_AGAIN_SECONDS = 3, 2.0  # how often then, and after how long: a slow disk takes its time

# --- the signed log of the journal ----------------------------------------------------------------------------------
LOG_SIGN_SECONDS = 0.7  # after a record is on disk, until it is signed: with that a checkpoint has it within a second
LOG_UNSIGNED = 1_000  # records that wait for no more time than that
LOG_AT_ONCE = 2_000  # records under one checkpoint, which take about 20 ms of a thread
LOG_PAUSE_SECONDS = 0.05  # between two such: a million records of before are signed in a minute, beside all else
LOG_AGAIN_SECONDS = 1.0  # after the disk took no checkpoint
INDEX_READ = 256  # records of the journal that are indexed at once: 2 ms of a thread
INDEX_WRITTEN = 500  # rows of the index in one write, which others wait for: about 1 ms
INDEX_PAUSE_SECONDS = 0.05  # between two blocks: a million records of before are indexed in a minute, beside all else
INDEX_AGAIN_SECONDS = 5.0  # after the disk took nothing of it
INDEX_PRUNED = 10_000  # rows of the index that go at once with records: those of about 10,000 records
READS_SECONDS = 60.0  # in which reads of the journal by one operator with one filter are recorded together
READS_TOLD = 30  # filters of an operator's that are recorded one by one in that time
EXPORT_RECORDS = 500  # that are read at once for an export: 5 ms of a thread
EXPORT_TILES = 64  # of a tree that are, half a megabyte
EXPORT_PIECE_BYTES = 256 * 1024  # of a file, in one message

# --- sinks of the journal --------------------------------------------------------------------------------------
SINKS = 16  # each reads the whole journal for itself
SINK_EVENTS = 200  # that its filter names: there are fewer
SINK_BATCH_RECORDS = 500
SINK_BATCH_BYTES = 256 * 1024  # of one batch, but for a record that is longer itself
SINK_OCSF_BATCH_BYTES = 1024 * 1024  # the same of OCSF's events, which are some three times as long
SINK_SCANNED = 5_000  # records that one read passes, where few are wanted: some 10 ms of a thread
SINK_PAUSE_SECONDS = 0.1  # from a record to the batch that it goes with, so that a burst shares one
SINK_SAVE_SECONDS = 0.2  # between two writes of a sink's place while it is behind: so much is sent twice after a kill
SINK_IDLE_SAVE_SECONDS = 5.0  # the same where a sink wants none of what is recorded: that is looked at again only
SINK_RETRY_SECONDS, SINK_RETRY_MAX_SECONDS = 1.0, 60.0  # after the first failure; each further pause is twice as long
SINK_REFUSED_IN_ROW = 16  # records set aside with nothing taken between; each further one waits as after a failure
SINK_CHECKPOINT_SECONDS = 60.0  # between two checkpoints for a sink that gets no records meanwhile
SINK_FINISH_SECONDS = 2.0  # that the end of the agent waits for its last records to be taken
SINK_DEADLINE_SECONDS = 10.0  # for one batch
SINK_DEADLINE_MAX_SECONDS = 60.0
SINK_TOKEN_MAX_BYTES = 8 * 1024
SINK_FILE_BYTES, SINK_FILES = 100 * 1024 * 1024, 10
SINK_FILE_BYTES_LEAST, SINK_FILES_MOST = 1024 * 1024, 1_000

# --- a journal whose records may not be pruned --------------------------------------------------------------
AUDIT_KEEP_LEAST_SECONDS = 3_600  # that an operator may set; less says nothing of a day
ROOM_LEVELS = (0.5, 0.8, 0.95)  # of audit.max_bytes, that are told once each
ROOM_SOON_SHARE, AUDIT_LOOK_SOON_SECONDS = 0.5, 2.0  # from there on it is looked at as often: 4 MiB of one workload's
ROOM_FAIR_SHARE = 0.8  # from there on whoever causes more than half of the records is refused what would add to them
ROOM_FAIR_RECORDS = 1_000  # in the last hour: of fewer nobody's half is a flood
ROOM_WINDOW_SECONDS = 3_600.0
ROOM_OWNERS = 1_000  # workloads that are counted each in a minute, those with the most records; others are one
FULL_DENIALS_SECONDS = 60.0  # while it is full, in which so many denials are recorded as else in a second

# --- reviews for assurance ------------------------------------------------------------------------------------------
REVIEW_LOOK_SECONDS = 5.0  # after which a review that has become overdue is told, at the latest
REVIEW_SOON_SECONDS = 14 * 86_400  # before its date, from when on a review counts as due
REVIEW_ROWS = 100  # of a list in the evidence of an item: as many as a person reads
REVIEW_SHOWN_EACH = 4  # versions of an item's evidence that are kept: those that were shown last
REVIEW_SHOWN_SECONDS = 60 * 86_400  # for which what was shown may be decided on: a spreadsheet goes its rounds
REVIEW_AHEAD_SECONDS = 60  # by which a time may be ahead of the clock that was noted by it: more, and it was set
REVIEW_SETTLED_SECONDS = 3_600.0  # for which nobody has set the clock, before dates are let go or mended by it
REVIEW_CHANGERS = 16  # users who reloaded a type since it was last kept, none of whom decides on it: the last
REVIEW_DECIDED_SECONDS = 400 * 86_400  # for which the evidence of a decision is kept, as daily sums are
REVIEW_STATE_SECONDS = 800 * 86_400  # for which the dates of an item are kept of which nothing is heard any more
REVIEW_DECISIONS = 20_000  # in one call: a spreadsheet of all that an agent has
REVIEW_CALL = 1_000  # decisions of a spreadsheet in one call, so that it and its answer are small and soon there
REVIEW_WRITTEN = 200  # rows in one write, which others wait for
REVIEW_READ = 500  # pieces of evidence that are read, or made, at once in a thread
REVIEW_OVERDUE_TOLD = 20  # by name, in the agent's status
REVIEW_REASON_MAX = 2_000  # characters
REVIEW_CSV_MAX_BYTES = 64 * 1024 * 1024  # of a spreadsheet that is read back

# --- the control map: so that a journal of a million records needs no more memory than one of a thousand ------------
CONTROL_TASKS = 250_000  # live at once of which what they hold is kept, some 500 bytes each; others are not judged
CONTROL_ENDED = 20_000  # that have ended, for records that stand behind that of the end: those of some seconds
CONTROL_TOKENS = 20_000  # the last ones, by which a service may go on: they live a minute
CONTROL_KEYS = 10_000  # kinds of one thing that are judged by their task types at the end; others are not judged
CONTROL_NAMED = 50_000  # credentials, entries, reviews that are open, or are gone and must stay so
CONTROL_EXCEPTIONS = 10  # records that a row names; of the others it has the number
CONTROL_NAMES = 20  # of types and entries that a row names
CONTROL_GRACE_MS = 10_000  # to the end of the records, in which what must come next need not have come

# --- installing -----------------------------------------------------------------------------------------------------
SYSTEMD_OLDEST = 249  # of what the units need, the newest: that sandbox and sockets work as they are tested

# --- witnesses of the signed log ------------------------------------------------------------------------------------
WITNESS_EVERY_SECONDS, WITNESS_EVERY_LEAST_SECONDS = 10.0, 1.0  # between two checkpoints that a witness is sent
WITNESS_AGAIN_SECONDS = 3_600.0  # after which the same checkpoint is cosigned again: there was no newer one by then
WITNESS_OLD_SECONDS = 7_200.0  # since a cosignature, from which on something is wrong
WITNESS_DEADLINE_SECONDS, WITNESS_DEADLINE_MAX_SECONDS = 10.0, 60.0  # for one request
WITNESS_RETRY_SECONDS, WITNESS_RETRY_MAX_SECONDS = 1.0, 60.0  # after a failure; each further pause is twice as long
WITNESS_AHEAD_SECONDS = 300.0  # that its clock may be ahead of ours
STAMP_EVERY_SECONDS, STAMP_EVERY_LEAST_SECONDS = 86_400.0, 60.0  # between two checkpoints that are time-stamped
STAMP_RETRY_SECONDS, STAMP_RETRY_MAX_SECONDS = 10.0, 3_600.0  # as for a witness, of somebody who is asked once a day
STAMP_MAX_BYTES = 64 * 1024  # of one answer, with the certificates in it
STAMP_APART_SECONDS = 300.0  # that an authority's clock may be from ours; an auditor's may be as far behind a stamp
STAMPS_KEPT = 1_000  # of one log: years of one a day; each is some kilobytes
WITNESSES = 16  # that an agent has its log cosigned by
WITNESS_LOGS = 1_000  # that one witness cosigns: a kilobyte of memory and a file each
WITNESS_CONFLICTS = 20  # heads of one log that contradict what was cosigned, which are kept
WITNESS_UNPROVED = 5  # heads of one log that are kept though nothing shows whether they contradict it
WITNESS_REQUEST_MAX_BYTES = 32 * 1024  # 63 hashes, and a checkpoint with many signatures
WITNESS_REQUESTS_PER_SECOND = 50  # of one network: a log needs one in some seconds
WITNESS_CONNECTIONS, WITNESS_CONNECTIONS_PER_NETWORK = 512, 64
WITNESS_STOP_SECONDS = 5.0  # for what is under way when it is to stop

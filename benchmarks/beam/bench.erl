%% What gpool's parts cost on the BEAM: prints the versions, then a name, a tab and
%% nanoseconds a line.
%%
%% The clock is the CPU time of the emulator, in steps of a millisecond: everything is
%% done often enough for that, and so often that what processes do first, growing their
%% heaps, does not count. Pools have ten workers; poolboy and nimble_pool are
%% measured if their modules are found.
%%
%% It is also the worker of all of them: a gen_server that echoes, and tells of its birth.

-module(bench).
-behaviour(gen_server).
-export([main/0, start_link/1, init/1, handle_call/3, handle_cast/2]).
-export([init_worker/1, handle_checkout/4]).

-define(SIZE, 10).
-define(NIMBLE, 'Elixir.NimblePool').

main() ->
    process_flag(trap_exit, true),
    logger:set_primary_config(level, none),
    io:format("OTP ~s~s~s~n", [erlang:system_info(otp_release), version(poolboy), version(nimble_pool)]),
    [io:format("~s\t~.1f~n", [Name, Measure()]) || {Name, Measure} <- measures()],
    halt().

version(Application) ->
    application:load(Application),
    case application:get_key(Application, vsn) of
        {ok, Version} -> io_lib:format(", ~s ~s", [Application, Version]);
        undefined -> ""
    end.

measures() ->
    [{"gen_server:call", fun() -> calls(1, 200000) end},
     {"gen_server:call, 100 callers", fun() -> calls(100, 200000) end},
     {"spawn + end", fun() -> spawns(100000) end},
     {"restart, one_for_one", fun() -> restarts(one_for_one, 1, 100, 100) end},
     {"restart, one_for_all of 10", fun() -> restarts(one_for_all, 10, 50, 50) end},
     {"restart, one_for_all of 100", fun() -> restarts(one_for_all, 100, 20, 20) end}]
        ++ pool("poolboy", poolboy, fun start_poolboy/0, fun use_poolboy/2)
        ++ pool("nimble_pool", ?NIMBLE, fun start_nimble/0, fun use_nimble/2).

pool(Name, Module, Start, Use) ->
    case code:ensure_loaded(Module) of
        {module, Module} ->
            [{Name, fun() -> uncontended(Start(), Use, 200000) end},
             {Name ++ ", 100 clients", fun() -> contended(Start(), Use, 100, 200000) end},
             {Name ++ ", 10,000 clients", fun() -> contended(Start(), Use, 10000, 1000000) end}];
        _ ->
            []
    end.

%% --- The clock ---

timed(N, Do) ->
    erlang:garbage_collect(),
    {Start, _} = statistics(runtime),
    Do(),
    {End, _} = statistics(runtime),
    (End - Start) * 1.0e6 / N.

%% Lets so many processes do it, each its part, and waits for all.
crowd(Number, N, Do) ->
    Me = self(),
    Part = N div Number,
    Crowd = [spawn_link(fun() -> receive go -> times(Part, Do) end, Me ! done end)
             || _ <- lists:seq(1, Number)],
    timed(N, fun() ->
        [Pid ! go || Pid <- Crowd],
        [receive done -> ok end || _ <- Crowd]
    end).

times(0, _) -> ok;
times(N, Do) -> Do(), times(N - 1, Do).

%% --- Calls, spawns, restarts ---

calls(Callers, N) ->
    {ok, Server} = start_link(nobody),
    crowd(Callers, N, fun() -> gen_server:call(Server, 1) end).

spawns(N) ->
    timed(N, fun() -> times(N, fun() ->
        {Pid, Ref} = spawn_monitor(fun() -> ok end),
        receive {'DOWN', Ref, process, Pid, _} -> ok end
    end) end).

%% Few restarts for each of several supervisors: a supervisor goes through all of its
%% restarts of the last second at each of them.
restarts(Strategy, Size, Supervisors, Times) ->
    Sups = [start_supervisor(Strategy, Size) || _ <- lists:seq(1, Supervisors)],
    Reborn = case Strategy of one_for_all -> Size; one_for_one -> 1 end,
    timed(Supervisors * Times, fun() ->
        [times(Times, fun() -> kill_one(Sup, Reborn) end) || Sup <- Sups]
    end).

start_supervisor(Strategy, Size) ->
    Specs = [#{id => I, start => {?MODULE, start_link, [self()]}} || I <- lists:seq(1, Size)],
    Flags = #{strategy => Strategy, intensity => 1000000, period => 1},
    {ok, Sup} = supervisor:start_link(?MODULE, {supervisor, Flags, Specs}),
    births(Size),
    put(Sup, get(born)),
    Sup.

kill_one(Sup, Reborn) ->
    exit(get(Sup), kill),
    births(Reborn),
    put(Sup, get(born)).

births(0) -> ok;
births(N) -> receive {born, Pid} -> put(born, Pid), births(N - 1) end.

%% --- Pools ---

uncontended(Pool, Use, N) ->
    timed(N, fun() -> times(N, fun() -> Use(Pool, fun() -> ok end) end) end).

contended(Pool, Use, Clients, N) ->
    crowd(Clients, N, fun() -> Use(Pool, fun erlang:yield/0) end).

start_poolboy() ->
    {ok, Pool} = poolboy:start_link([{worker_module, ?MODULE}, {size, ?SIZE}, {max_overflow, 0}],
                                    nobody),
    Pool.

use_poolboy(Pool, Do) ->
    Worker = poolboy:checkout(Pool),
    Do(),
    poolboy:checkin(Pool, Worker).

start_nimble() ->
    {ok, Pool} = ?NIMBLE:start_link([{worker, {?MODULE, nobody}}, {pool_size, ?SIZE}]),
    Pool.

use_nimble(Pool, Do) ->
    ?NIMBLE:'checkout!'(Pool, checkout, fun(_From, Thing) -> {Do(), Thing} end).

init_worker(State) -> {ok, thing, State}.

handle_checkout(checkout, _From, Thing, State) -> {ok, Thing, Thing, State}.

%% --- The worker ---

start_link(Whom) -> gen_server:start_link(?MODULE, Whom, []).

init({supervisor, Flags, Specs}) -> {ok, {Flags, Specs}};
init(nobody) -> {ok, nobody};
init(Whom) -> Whom ! {born, self()}, {ok, Whom}.

handle_call(Request, _From, State) -> {reply, Request, State}.

handle_cast(_Message, State) -> {noreply, State}.

import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;
import java.util.Set;

/** Runs a server that speaks MongoDB's protocol. Its arguments are a port and a data file. */
class TestMongo {
    /** The oldest version that the driver talks to. */
    record Version(List<Integer> getVersionArray, int getWireVersion) implements MongoVersion {
        public List<Integer> getVersionArray() { return getVersionArray; }
        public int getWireVersion() { return getWireVersion; }
    }

    /** Makes each command visible whole or not at all, and acknowledged changes outlive the process, as mongod does. */
    static class Backend extends H2Backend {
        private static final Set<String> READS = Set.of("find", "aggregate", "count", "hello", "ismaster", "ping");

        Backend(String file) { super(file); }

        @Override
        public synchronized Document handleMessage(MongoMessage message) {
            var answer = super.handleMessage(message);
            if (!READS.contains(message.getDocument().keySet().iterator().next().toLowerCase())) commit();
            return answer.cloneDeeply(); // the next command may change the original while this is sent
        }
    }

    public static void main(String[] arguments) {
        var backend = new Backend(arguments[1]);
        backend.version(new Version(List.of(4, 4, 0), 9));
        new MongoServer(backend).bind("127.0.0.1", Integer.parseInt(arguments[0]));
    }
}

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Runs the statements of a file, but for INSERT, then a query, and prints the rows of its
 * result as they change: Flink.java FILE QUERY.
 */
public class Flink {
  public static void main(String[] args) throws Exception {
    TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
    tables.getConfig().set("parallelism.default", "1");
    for (String statement : Files.readString(Path.of(args[0])).replaceAll("(?m)--.*$", "").split(";")) {
      if (statement.isBlank()) {
        continue;
      }
      Matcher set = Pattern.compile("SET '(.*)' = '(.*)'").matcher(statement.strip());
      if (set.matches()) { // a statement of Flink's SQL client only
        tables.getConfig().set(set.group(1), set.group(2));
      } else if (statement.strip().startsWith("INSERT")) {
        tables.explainSql(statement); // it must be valid
      } else {
        tables.executeSql(statement);
      }
    }
    try (var rows = tables.executeSql(args[1]).collect()) {
      rows.forEachRemaining(System.out::println);
    }
    System.exit(0);
  }
}
